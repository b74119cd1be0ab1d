"""Real engines on a CPU in float32, and what became of the requests sent through them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dllm_server.engine.engine import Engine
from dllm_server.engine.process.startup import StartedEngine, start
from dllm_server.engine.requests.messages import (
    BlockCommitted,
    CanvasUpdate,
    Diffusion,
    Failed,
    Finished,
    FinishReason,
    FromEngine,
    Generate,
    RequestStats,
    Sampling,
    Score,
    Scored,
)
from dllm_server.settings import Confidence, EngineSettings, Strategy

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
FIXTURE = FIXTURES / "llada_mha"


def make_settings(model: Path, **changes: Any) -> EngineSettings:
    small: dict[str, Any] = {
        "device": "cpu",
        "dtype": "float32",
        "max_num_batched_tokens": 512,
        "max_num_seqs": 16,
        "block_length": 8,
        "page_size": 4,
        "kv_pool_bytes": 4 * 1024**2,
    }
    return EngineSettings(model=str(model), **(small | changes))


def start_engine_in_process(model: Path, **changes: Any) -> StartedEngine:
    return start(make_settings(model, **changes))


def make_engine(model: Path, **changes: Any) -> Engine:
    return start_engine_in_process(model, **changes).engine


def make_request(
    request_id: str = "r",
    *,
    prompt: Sequence[int] = (3, 5, 7),
    max_tokens: int = 16,
    block_length: int = 8,
    refresh_interval: int | None = None,
    strategy: Strategy = Strategy.QUOTA,
    value: float = 2.0,
    confidence: Confidence = Confidence.PROBABILITY,
    retention_ratio: float = 1.0,
    stop_token_ids: Sequence[int] = (),
    min_tokens: int = 0,
    top_logprobs: int = 0,
    wants_canvas: bool = False,
    prompt_refresh_interval: int = 1,
    refresh_window: int | None = None,
    **sampling: Any,
) -> Generate:
    diffusion = Diffusion(
        block_length,
        refresh_interval,
        strategy,
        value,
        confidence,
        retention_ratio,
        prompt_refresh_interval=prompt_refresh_interval,
        refresh_window=refresh_window,
    )
    return Generate(
        request_id,
        list(prompt),
        max_tokens,
        Sampling(**sampling),
        diffusion,
        list(stop_token_ids),
        min_tokens,
        top_logprobs,
        wants_canvas,
    )


def make_score(
    request_id: str = "s",
    *,
    tokens: Sequence[int] = (3, 5, 7, 9),
    scored: Sequence[int] = (2,),
    masked_from: int = 3,
    top_logprobs: int = 0,
) -> Score:
    return Score(request_id, list(tokens), list(scored), masked_from, top_logprobs)


@dataclass
class Outcome:
    """All that was said about one request. ``ends`` holds its Finished, Scored and Failed messages: one,
    always."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[list[tuple[int, float]]] = field(default_factory=list)
    canvases: list[CanvasUpdate] = field(default_factory=list)
    ends: list[Finished | Scored | Failed] = field(default_factory=list)

    @property
    def end(self) -> Finished | Scored | Failed:
        (end,) = self.ends
        return end

    @property
    def stats(self) -> RequestStats:
        return self.end.stats

    @property
    def is_complete(self) -> bool:
        return isinstance(self.end, Finished) and self.end.reason is not FinishReason.CANCELLED


def collect(messages: Iterable[FromEngine], outcomes: dict[str, Outcome]) -> None:
    for message in messages:
        match message:
            case BlockCommitted(request_id, token_ids, logprobs, _, alternatives):
                assert len(token_ids) == len(logprobs)
                assert len(alternatives) in (0, len(token_ids))
                outcome = outcomes.setdefault(request_id, Outcome())
                assert not outcome.ends, "tokens after the end"
                outcome.tokens += token_ids
                outcome.logprobs += logprobs
                outcome.alternatives += alternatives
            case CanvasUpdate(request_id):
                outcomes.setdefault(request_id, Outcome()).canvases.append(message)
            case Finished(request_id) | Scored(request_id) | Failed(request_id):
                outcomes.setdefault(request_id, Outcome()).ends.append(message)


def run_all(
    engine: Engine,
    requests: Iterable[Generate | Score],
    *,
    after_step: Callable[[int], None] = lambda step: None,
    most_steps: int = 5000,
) -> dict[str, Outcome]:
    """Submit everything, step until nothing is left, and say what became of each request."""
    outcomes: dict[str, Outcome] = {}
    for request in requests:
        collect(engine.submit(request), outcomes)
    for step in range(most_steps):
        if not engine.has_work:
            return outcomes
        collect(engine.step(), outcomes)
        after_step(step)
    raise AssertionError(f"the engine still has work after {most_steps} steps")


def run_alone(engine: Engine, request: Generate | Score) -> Outcome:
    return run_all(engine, [request])[request.request_id]


def run_with_cancels(
    engine: Engine, requests: Sequence[Generate], dice: random.Random, *, share: float
) -> dict[str, Outcome]:
    """Requests come while others run; in a ``share`` of the steps any of them is cancelled."""
    outcomes: dict[str, Outcome] = {}
    queue = list(requests)
    while queue or engine.has_work:
        if queue and dice.random() < 0.6:
            collect(engine.submit(queue.pop(0)), outcomes)
        if dice.random() < share:
            collect(engine.cancel(dice.choice(requests).request_id), outcomes)
        collect(engine.step(), outcomes)
    return outcomes


def check_ends(
    requests: Iterable[Generate], outcomes: Mapping[str, Outcome], undisturbed: Mapping[str, Outcome]
) -> None:
    """Each has ended once, and those that are whole as they would have undisturbed."""
    assert set(outcomes) == {request.request_id for request in requests}
    for name, outcome in outcomes.items():
        assert len(outcome.ends) == 1
        if outcome.is_complete:
            assert outcome.tokens == undisturbed[name].tokens


def used_pages(engine: Engine) -> int:
    return engine.course.store.used_pages
