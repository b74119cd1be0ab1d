"""Tokens that end a request, and how a request that cannot be served with them is refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from checkpoints import Size, make_checkpoint
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import (
    MOST_ALTERNATIVES,
    MOST_STOP_TOKENS,
    Failed,
    Finished,
    FinishReason,
)
from engines import make_engine, make_request, run_alone, used_pages


@cache
def engine() -> Engine:
    return make_engine(make_checkpoint(Path(mkdtemp(prefix="dllm-test-")), Size()))


@pytest.fixture(params=[False, True], ids=["waits", "runs-ahead"], autouse=True)
def _runs_ahead(request: pytest.FixtureRequest) -> None:
    engine().runs_ahead = request.param


def test_the_first_of_several_stop_tokens_ends_the_request_and_is_named() -> None:
    free = run_alone(engine(), make_request(max_tokens=24))
    first, later = free.tokens[10], free.tokens[17]
    stops = [later, 1 if 1 not in free.tokens else 2, first]

    outcome = run_alone(engine(), make_request(max_tokens=24, stop_token_ids=stops, top_logprobs=2))

    cut = min(free.tokens.index(first), free.tokens.index(later))
    assert outcome.tokens == free.tokens[:cut]
    assert isinstance(outcome.end, Finished)
    assert (outcome.end.reason, outcome.end.stop.token_id) == (FinishReason.STOP, free.tokens[cut])
    assert outcome.end.stop.logprob == pytest.approx(free.logprobs[cut], abs=1e-4)
    assert outcome.end.stop.top_logprobs[0] == (free.tokens[cut], pytest.approx(free.logprobs[cut], abs=1e-4))
    assert used_pages(engine()) == 0


def test_a_request_that_fills_its_canvas_names_no_stop_token() -> None:
    outcome = run_alone(engine(), make_request(max_tokens=8))

    assert isinstance(outcome.end, Finished)
    assert (outcome.end.reason, outcome.end.stop) == (FinishReason.LENGTH, None)


def test_as_many_stop_tokens_as_allowed_are_all_heeded() -> None:
    free = run_alone(engine(), make_request(max_tokens=24))
    absent = next(token for token in range(60) if token not in free.tokens)
    stops = [absent] * (MOST_STOP_TOKENS - 1) + [free.tokens[5]]

    outcome = run_alone(engine(), make_request(max_tokens=24, stop_token_ids=stops))

    assert outcome.tokens == free.tokens[: free.tokens.index(free.tokens[5])]


def test_a_slots_stop_tokens_are_not_the_next_requests() -> None:
    free = run_alone(engine(), make_request(max_tokens=24))
    run_alone(engine(), make_request(max_tokens=24, stop_token_ids=free.tokens[:3], min_tokens=1))

    assert run_alone(engine(), make_request(max_tokens=24)).tokens == free.tokens


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"stop_token_ids": [1] * (MOST_STOP_TOKENS + 1)}, f"{MOST_STOP_TOKENS + 1} stop_token_ids exceed"),
        ({"stop_token_ids": [3, 64]}, "stop_token_ids hold a token id outside the vocabulary of 64"),
        ({"stop_token_ids": [-1]}, "stop_token_ids hold a token id outside the vocabulary of 64"),
        ({"stop_token_ids": list(range(63)), "min_tokens": 1}, "63 stop_token_ids leave no other token"),
        ({"top_logprobs": MOST_ALTERNATIVES + 1}, f"top_logprobs 21 is outside 0 to {MOST_ALTERNATIVES}"),
        ({"top_logprobs": -1}, "top_logprobs -1 is outside"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(asked: dict[str, Any], problem: str) -> None:
    (refusal,) = engine().submit(make_request(**asked))

    assert isinstance(refusal, Failed)
    assert refusal.message.startswith(problem)
