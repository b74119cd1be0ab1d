"""Structured logs on stderr, of libraries too: one JSON object a line, or lines for people. Prompts and keys
are never logged. For the server's processes and the operator."""

from __future__ import annotations

import logging
import os
import sys

import structlog

from dllm_server.settings import LogFormat, LogSettings

_CHATTY = ("uvicorn.access", "httpx", "asyncio", "aiohttp.access", "kopf.objects")


def configure_logging(settings: LogSettings) -> None:
    """Send structlog's and the standard library's records, and warnings, through one formatter; of servers'
    and clients' own chatter, warnings."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(settings.log_format),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    logging.captureWarnings(True)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)


def adopt_logger(name: str) -> None:
    """Send a library's records the way of all others, where it has made itself a handler of its own."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True


def _rendering(log_format: LogFormat) -> list[structlog.typing.Processor]:
    is_terminal = sys.stderr.isatty()
    if log_format is LogFormat.CONSOLE or (log_format is LogFormat.AUTO and is_terminal):
        has_colors = is_terminal and not os.environ.get("NO_COLOR")
        # Its own tracebacks would print local variables, and with them prompts.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=has_colors, exception_formatter=plain)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
