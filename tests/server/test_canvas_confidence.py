"""Canvas updates tell, to whoever asks, what each position's confidence was in the step they come from."""

from __future__ import annotations

import math

import msgspec
import pytest
from dllm_server.engine.requests.messages import CanvasUpdate, Generate
from dllm_server.settings import Strategy
from engines import FIXTURE, FIXTURES, Outcome, make_engine, make_request, run_alone
from exact_cases import BLOCK_CAUSAL, cases_of
from test_exact_engine import engine_of, request_of

THRESHOLD = 0.13  # what about half of the random model's guesses reach


def asking(request: Generate) -> Generate:
    return msgspec.structs.replace(request, wants_canvas=True, wants_confidence=True)


def masked_before(canvases: list[CanvasUpdate], index: int) -> list[bool]:
    """Of the block that update number ``index`` shows."""
    now = canvases[index]
    if index and canvases[index - 1].block_start == now.block_start:
        return [token < 0 for token in canvases[index - 1].token_ids]
    return [True] * len(now.token_ids)


def check_told(outcome: Outcome) -> None:
    """Every update has a number for each token, and the last of a position is that of its logprob."""
    last: dict[int, float] = {}
    for canvas in outcome.canvases:
        assert len(canvas.confidence) == len(canvas.token_ids)
        for place, (token, value) in enumerate(zip(canvas.token_ids, canvas.confidence, strict=True)):
            assert value is None or 0 <= value <= 1
            if token >= 0:
                assert value is not None
                last[canvas.block_start + place] = value
    expected = [math.exp(logprob) for logprob in outcome.logprobs]
    assert [last[place] for place in range(len(expected))] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("runs_ahead", [False, True])
def test_a_quota_commits_the_positions_that_were_the_surest(runs_ahead: bool) -> None:
    engine = make_engine(FIXTURE)
    engine.runs_ahead = runs_ahead
    outcome = run_alone(engine, asking(make_request(max_tokens=24, value=2.0)))

    check_told(outcome)
    for index, canvas in enumerate(outcome.canvases):
        was_masked = masked_before(outcome.canvases, index)
        values = list(zip(was_masked, canvas.token_ids, canvas.confidence, strict=True))
        new = [value for masked, token, value in values if masked and token >= 0]
        left = [value for _, token, value in values if token < 0]
        assert len(new) == 2
        assert None not in left
        assert min(map(float, new)) >= max([float(value) for value in left if value is not None], default=0.0)


def test_a_threshold_leaves_what_does_not_reach_it() -> None:
    request = make_request(max_tokens=24, strategy=Strategy.THRESHOLD, value=THRESHOLD)
    outcome = run_alone(make_engine(FIXTURE), asking(request))

    check_told(outcome)
    left = [
        value
        for canvas in outcome.canvases
        for token, value in zip(canvas.token_ids, canvas.confidence, strict=True)
        if token < 0
    ]
    assert left
    assert all(value is not None and value < THRESHOLD for value in left)


@pytest.mark.parametrize("fixture", BLOCK_CAUSAL)
def test_block_causal_models_tell_it_too(fixture: str) -> None:
    case = cases_of(fixture)[0]
    outcome = run_alone(engine_of(fixture), asking(request_of(fixture, case)))

    assert outcome.tokens == case["expected"]
    check_told(outcome)


def test_updates_name_the_phase_of_their_step() -> None:
    bidirectional = run_alone(make_engine(FIXTURE), asking(make_request(max_tokens=8, value=4.0)))
    case = cases_of("sdar")[0]
    causal = run_alone(engine_of("sdar"), asking(request_of("sdar", case)))

    assert [canvas.phase for canvas in bidirectional.canvases] == ["refresh", "reuse"]
    assert {canvas.phase for canvas in causal.canvases} <= {"prefill", "denoise"}


def test_who_does_not_ask_is_not_told() -> None:
    outcome = run_alone(make_engine(FIXTURES / "llada_mha"), make_request(wants_canvas=True))

    assert outcome.canvases
    assert all(canvas.confidence == [] for canvas in outcome.canvases)
