"""Outcomes as tests write them."""

from __future__ import annotations

from dllm_server.load.outcome import Outcome


def make_outcome(
    intended: float = 0.0,
    *,
    waits: tuple[float, ...] = (0.5, 1.0),
    lag: float = 0.0,
    end: float | None = None,
    error: str | None = None,
    prompt_tokens: int | None = 3,
    completion_tokens: int | None = 2,
    queue_seconds: float | None = None,
) -> Outcome:
    """Blocks come ``waits`` after the intended arrival, the end ``end`` after it, or with the last block."""
    ended = intended + (end if end is not None else max(waits, default=lag))
    return Outcome(
        intended=intended,
        sent=intended + lag,
        ended=ended,
        blocks=tuple(intended + wait for wait in waits),
        error=error,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        queue_seconds=queue_seconds,
    )
