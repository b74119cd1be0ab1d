"""The API's end of the engine process: send requests, receive their events as an async stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from dllm_server.engine.requests.messages import (
    BlockCommitted,
    CanvasUpdate,
    EngineSnapshot,
    Failed,
    Finished,
    Generate,
    ModelInfo,
    Score,
    Scored,
)
from dllm_server.termination import Termination

RequestEvent = BlockCommitted | CanvasUpdate | Finished | Failed


class EngineDeadError(RuntimeError):
    """The engine process has ended; open and new requests cannot be served."""


class EngineStartError(RuntimeError):
    """The engine process could not start; the message is one clear line for the log, and ``termination``
    says what kind of failure it was."""

    def __init__(self, termination: Termination, message: str | None = None) -> None:
        super().__init__(message or termination.message)
        self.termination = termination


class EngineClient(Protocol):
    """What the API may ask of the engine. One event loop uses it."""

    @property
    def model(self) -> ModelInfo:
        """What is served; known once the engine is ready."""

    @property
    def is_alive(self) -> bool:
        """Whether the engine process runs and answers."""

    @property
    def snapshot(self) -> EngineSnapshot | None:
        """The newest state the engine has sent."""

    def generate(self, request: Generate) -> AsyncIterator[RequestEvent]:
        """Submit and yield events until ``Finished`` or ``Failed``.

        Closing the iterator early (``aclose``) cancels the request. Raises ``EngineDeadError`` when the
        process ends.
        """

    async def score(self, request: Score) -> Scored | Finished | Failed:
        """Submit and return how it ended; ``Finished`` says that it was cancelled. Cancelling the caller
        cancels the request. Raises ``EngineDeadError`` when the process ends.
        """

    async def wait_until_dead(self) -> int:
        """Return the engine process's exit code once it has ended."""

    async def close(self) -> None:
        """Stop the engine process and release the sockets."""
