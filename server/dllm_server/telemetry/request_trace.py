"""One trace for each HTTP request: from its arrival through the engine's queue and blocks to the last byte.

The engine is another process. Its spans are made here, of the times that its messages carry: both processes
read the machine's one monotonic clock.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dllm_server.engine.requests.messages import Generate, RequestStats
from dllm_server.telemetry.request_id import request_id_of
from dllm_server.telemetry.request_log import COUNTED_PATHS, QUIET_PATHS
from dllm_server.tracing import Attributes, Span, Tracer

PROVIDER = "dllm"
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
}

_current: ContextVar[RequestTrace | None] = ContextVar("request_trace", default=None)


class TraceRequests:
    """ASGI middleware: gives every request but probes and scrapes its trace, and log lines its ids."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET_PATHS:
            await self._app(scope, receive, send)
            return
        trace = RequestTrace(self._tracer, scope)
        _current.set(trace)
        structlog.contextvars.bind_contextvars(**trace.span.ids)
        status = 499  # if the client leaves before there is one

        async def watch(message: Message) -> None:
            nonlocal status
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                trace.note_last_byte()

        try:
            await self._app(scope, receive, watch)
        except Exception:
            status = 500
            raise
        finally:
            trace.end(scope, status)


class RequestTrace:
    """``prepare``: until the choices are sent to the engine; a span for each choice; ``respond``: from the
    engine's last word to the last byte."""

    def __init__(self, tracer: Tracer, scope: Scope) -> None:
        self._unix_ns = time.time_ns() - time.monotonic_ns()
        self._began = time.monotonic()
        self._ended: float | None = None
        self._is_prepared = False
        self.last_word = 0.0
        path = scope["path"]
        self.operation = OPERATIONS.get(path, "")
        name = f"{scope['method']} {path}" if path in COUNTED_PATHS else scope["method"]
        attributes = {
            "http.request.method": scope["method"],
            "url.path": path,
            "url.scheme": scope["scheme"],
            "dllm.request_id": request_id_of(scope),
        }
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        begins_ns = self.unix_ns(self._began)
        self.span = tracer.begin(name, attributes, begins_ns=begins_ns, headers=headers, is_server=True)

    def unix_ns(self, moment: float) -> int:
        """Of a time of the monotonic clock, in seconds."""
        return int(moment * 1e9) + self._unix_ns

    def choice(self, request: Generate | None, index: int, prompt_tokens: int, model: str) -> ChoiceTrace:
        now = time.monotonic()
        if not self._is_prepared:
            self._is_prepared = True
            self.add(self.span, "prepare", self._began, now)
        return ChoiceTrace(self, now, request, index, prompt_tokens, model)

    def add(
        self, parent: Span, name: str, begins: float, ends: float, attributes: Attributes | None = None
    ) -> Span:
        """A span that is over."""
        span = parent.child(name, self.unix_ns(begins), attributes)
        span.end(self.unix_ns(max(ends, begins)))
        return span

    def note_last_byte(self) -> None:
        self._ended = time.monotonic()

    def end(self, scope: Scope, status: int) -> None:
        ends = self._ended or time.monotonic()
        if self.last_word:
            self.add(self.span, "respond", self.last_word, ends)
        route = getattr(scope.get("route"), "path", None)
        if route is not None:
            self.span.rename(f"{scope['method']} {route}")
            self.span.set({"http.route": route})
        self.span.set({"http.response.status_code": status})
        outcome = scope.get("state", {}).get("outcome")  # of a stream, whose status line came before
        if status >= 500:
            self.span.fail(str(status))
        elif outcome not in (None, "success", "cancelled"):
            self.span.fail(outcome)
        self.span.end(self.unix_ns(ends))


class ChoiceTrace:
    """A span of a choice, whose children follow each other without a gap: ``score`` (of a prompt), ``queue``,
    ``prefill`` of a block-causal model, and each ``block`` with the ``refresh`` that opened it."""

    def __init__(
        self,
        trace: RequestTrace,
        began: float,
        request: Generate | None,
        index: int,
        prompt_tokens: int,
        model: str,
    ) -> None:
        self._trace = trace
        self._at = began
        self._stats = RequestStats()
        self._blocks = 0
        self._output_tokens = 0
        self._is_over = False
        attributes: dict[str, str | int | float] = {
            "gen_ai.operation.name": trace.operation,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": model,
            "gen_ai.response.model": model,
            "gen_ai.usage.input_tokens": prompt_tokens,
            "dllm.choice": index,
        }
        if request is not None:
            attributes |= {
                "gen_ai.request.max_tokens": request.max_tokens,
                "gen_ai.request.temperature": request.sampling.temperature,
                "gen_ai.request.top_p": request.sampling.top_p,
                "gen_ai.request.top_k": request.sampling.top_k,
                "dllm.block_length": request.diffusion.block_length,
                "dllm.strategy": str(request.diffusion.strategy),
            }
        self._span = trace.span.child(f"{trace.operation} {model}", trace.unix_ns(began), attributes)

    def scored(self) -> None:
        """The prompt is."""
        now = time.monotonic()
        self._follow("score", now)
        self._trace.last_word = max(self._trace.last_word, now)

    def block(self, stats: RequestStats, tokens: int) -> None:
        """The next block is there, with so many tokens of an answer."""
        before, times = self._stats, stats.times
        told = times.told_seconds or time.monotonic()
        self._output_tokens += tokens
        if not self._blocks:
            self._follow("queue", times.admitted_seconds)
            if stats.prefill_passes:
                self._follow("prefill", times.opened_seconds, {"dllm.cached_tokens": stats.cached_tokens})
        self._blocks += 1
        refreshes = stats.refresh_passes - before.refresh_passes
        attributes = {
            "dllm.block": self._blocks,
            "dllm.tokens": tokens,
            "dllm.forward_passes": stats.forward_passes - before.forward_passes,
            "dllm.refresh_passes": refreshes,
        }
        began = self._at
        span = self._follow("block", told, attributes)
        if refreshes and began < times.opened_seconds <= told:
            self._trace.add(span, "refresh", began, times.opened_seconds)
        self._stats = stats
        self._trace.last_word = max(self._trace.last_word, self._at)

    def end(self, finish_reason: str, stats: RequestStats) -> None:
        if stats.forward_passes > self._stats.forward_passes and stats.times.told_seconds:
            self.block(stats, 0)  # nothing of it is shown: it began with a stop token
        self._span.set(
            {
                "gen_ai.response.finish_reasons": (finish_reason,),
                "gen_ai.usage.output_tokens": self._output_tokens,
                "dllm.forward_passes": stats.forward_passes,
            }
        )
        self._finish()

    def fail(self, kind: str) -> None:
        self._span.fail(kind)
        self._finish()

    def close(self) -> None:
        """However the choice ended."""
        if not self._is_over:
            self.fail("cancelled")

    def _finish(self) -> None:
        self._is_over = True
        self._span.end(self._trace.unix_ns(time.monotonic()))

    def _follow(self, name: str, ends: float, attributes: Attributes | None = None) -> Span:
        began, self._at = self._at, max(ends, self._at)
        return self._trace.add(self._span, name, began, self._at, attributes)


def trace_choice(request: Generate | None, index: int, prompt_tokens: int, model: str) -> ChoiceTrace | None:
    """Of the request whose context this is; None where nothing is traced."""
    trace = _current.get()
    return None if trace is None else trace.choice(request, index, prompt_tokens, model)
