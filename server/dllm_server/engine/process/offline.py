"""Run requests through an engine in this process, without the API: for the command line, evaluation and
benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import (
    BlockCommitted,
    CanvasUpdate,
    Failed,
    Finished,
    FinishReason,
    FromEngine,
    Generate,
    RequestStats,
)


class RequestFailedError(RuntimeError):
    """The engine refused or failed a request; the message is the engine's."""


@dataclass(slots=True)
class Completion:
    """What became of one request: tokens up to EOS, why it ended, its counts."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: FinishReason | None = None
    stats: RequestStats = field(default_factory=RequestStats)


def complete(
    engine: Engine, requests: Sequence[Generate], *, on_canvas: Callable[[CanvasUpdate], None] | None = None
) -> list[Completion]:
    """Submit all requests at once and step until they are done; the answers come in the order of
    ``requests``.

    Raises ``RequestFailedError`` for a request the engine cannot serve.
    """
    completions = {request.request_id: Completion() for request in requests}
    for request in requests:
        _note(engine.submit(request), completions, on_canvas)
    while engine.has_work:
        _note(engine.step(), completions, on_canvas)
    return [completions[request.request_id] for request in requests]


def _note(
    messages: Sequence[FromEngine],
    completions: dict[str, Completion],
    on_canvas: Callable[[CanvasUpdate], None] | None,
) -> None:
    for message in messages:
        match message:
            case BlockCommitted(request_id, token_ids, logprobs):
                completions[request_id].token_ids += token_ids
                completions[request_id].logprobs += logprobs
            case CanvasUpdate() if on_canvas is not None:
                on_canvas(message)
            case Finished(request_id, reason, stats):
                completions[request_id].reason, completions[request_id].stats = reason, stats
            case Failed(_, _, text):
                raise RequestFailedError(text)
