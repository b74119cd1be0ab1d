"""The knobs of the HTTP process; ``settings`` puts them beside the engine's."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import NoDecode

from dllm_server.settings.byte_size import ByteSize


def _split_at_commas(value: object) -> object:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_at_commas)]


class UnknownParameters(StrEnum):
    """What becomes of a request that holds a name which this server does not know."""

    REFUSE = "refuse"
    WARN = "warn"


class ToolCallParser(StrEnum):
    """A format in which models write calls of tools."""

    HERMES = "hermes"
    LLAMA3_JSON = "llama3_json"


class ApiSettings(BaseModel):
    """The HTTP process: address, limits, authentication, shutdown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104 - a server in a pod listens on all
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of /metrics alone, which asks for no key; 0 picks a free one. The API's port has "
        "them, behind its keys, if unset.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="One bearer key a line, asked for by everything but /health, /ready and the pages, which "
        "ask their user for one; reloaded when it changes. Not ready while it holds none.",
    )
    pages: bool = Field(True, description="Serve the playground at / and the engine page at /engine.")
    max_queued_requests: int = Field(256, ge=1, description="Requests waiting for admission before 429.")
    max_body_bytes: ByteSize = Field(4 * 1024**2, description="Largest request body.")
    unknown_parameters: UnknownParameters = Field(
        UnknownParameters.REFUSE,
        description="refuse answers 400 to a name that this server does not know; warn leaves it out and "
        "says so in the log and in the header X-DLLM-Ignored-Parameters.",
    )
    tool_call_parser: ToolCallParser | None = Field(
        None,
        description="How answers are read for calls of tools: hermes for <tool_call>{...}</tool_call>, "
        "llama3_json for an answer that is an object with name and parameters. Chosen from the chat "
        "template's text if unset.",
    )
    max_header_bytes: ByteSize = Field(32 * 1024, description="Largest request line and headers.")
    max_connections: int = Field(
        1024,
        ge=1,
        description="Open connections; one more takes the place of the oldest without a running request, "
        "or is answered 503.",
    )
    header_timeout_seconds: float = Field(
        10.0, gt=0, description="Time for a request's headers, from its first byte or the connection's begin."
    )
    body_timeout_seconds: float = Field(
        60.0, gt=0, description="Time for a request's body, after its headers."
    )
    write_timeout_seconds: float = Field(
        60.0, gt=0, description="A client that takes nothing of what is sent to it for so long is cut off."
    )
    keep_alive_timeout_seconds: float = Field(
        75.0, gt=0, description="Time for which a connection stays open after an answer."
    )
    request_timeout_seconds: float = Field(
        600.0, gt=0, description="A request still open then is cancelled with 504."
    )
    stream_keep_alive_seconds: float = Field(
        15.0,
        gt=0,
        description="A stream that has sent nothing for so long sends an SSE comment, so that proxies keep "
        "it open.",
    )
    cors_allow_origins: CommaSeparated = Field(
        (),
        description="Origins whose pages may call this server from a browser, separated by commas; * for "
        "all. None by default.",
    )
    shutdown_delay_seconds: float = Field(
        0.0,
        ge=0,
        description="After SIGTERM, time in which requests are still taken, so that clients of open "
        "connections can move on.",
    )
    shutdown_grace_seconds: float = Field(
        60.0, ge=0, description="After SIGTERM and the delay, time for running requests to finish."
    )

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.metrics_port == self.port and self.port != 0:
            raise ValueError(
                f"metrics_port {self.metrics_port} is the API's port: choose another, or unset it"
            )
        return self
