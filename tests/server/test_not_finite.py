"""A request for which the model computes no numbers fails, and takes nobody along."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from checkpoints import Size, make_checkpoint, make_weights, write_shards
from dllm_server.engine.accounts.soundness import MOST_IN_A_ROW, Soundness
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import Failed, FailureReason, Finished, Generate, Scored
from dllm_server.settings import Confidence, Strategy
from engines import Outcome, make_engine, make_request, make_score, run_all, run_alone, used_pages
from structlog.testing import capture_logs

POISON = 9  # finite as a weight; its square is not


def write_poisoned(directory: Path, size: Size) -> Path:
    """A checkpoint in which one token's embedding overflows, and which never chooses that token."""
    make_checkpoint(directory, size)
    weights, is_dream = make_weights(size), size.family == "dream"
    weights["model.embed_tokens.weight" if is_dream else "model.transformer.wte.weight"][POISON] = 1e30
    weights["lm_head.weight" if is_dream else "model.transformer.ff_out.weight"][POISON] = 0.0
    write_shards(directory, weights, 1)
    return directory


@cache
def engine(family: str = "llada") -> Engine:
    size = Size(family=family, n_kv_heads=2)
    return make_engine(write_poisoned(Path(mkdtemp(prefix="dllm-test-")), size))


@pytest.fixture(params=[False, True], ids=["waits", "runs-ahead"])
def _runs_ahead(request: pytest.FixtureRequest) -> None:
    for family in ("llada", "dream"):
        engine(family).runs_ahead = request.param


def is_not_finite(outcome: Outcome) -> bool:
    return isinstance(outcome.end, Failed) and outcome.end.reason is FailureReason.NOT_FINITE


def sound_requests() -> list[Generate]:
    """Of several lengths, strategies and retention ratios, so that they are padded beside one another."""
    return [
        make_request("short", prompt=[3], max_tokens=5),
        make_request("half-kept", prompt=[5, 7, 11] * 4, max_tokens=20, retention_ratio=0.5),
        make_request("threshold", prompt=[8] * 7, strategy=Strategy.THRESHOLD, value=0.4),
        make_request("factor", prompt=[4, 6] * 5, strategy=Strategy.FACTOR, value=1.2),
        make_request("sampled", prompt=[2, 3], temperature=1.0, top_k=5, seed=3),
    ]


@pytest.mark.usefixtures("_runs_ahead")
@pytest.mark.parametrize("family", ["llada", "dream"])
def test_the_others_of_the_batch_and_those_after_it_are_answered_as_if_alone(family: str) -> None:
    expected = {request.request_id: run_alone(engine(family), request).tokens for request in sound_requests()}
    poisoned = [
        make_request(f"poisoned-{length}", prompt=[3] * length + [POISON], max_tokens=24)
        for length in (1, 9, 17)
    ]
    mixed = [
        part for pair in zip(sound_requests(), [*poisoned, *poisoned[:0]], strict=False) for part in pair
    ]
    mixed += sound_requests()[len(poisoned) :]

    outcomes = run_all(engine(family), mixed)
    later = run_all(engine(family), sound_requests())

    assert all(is_not_finite(outcomes[request.request_id]) for request in poisoned)
    assert all(outcomes[request.request_id].tokens == [] for request in poisoned)
    assert {name: outcomes[name].tokens for name in expected} == expected
    assert {name: outcome.tokens for name, outcome in later.items()} == expected
    assert used_pages(engine(family)) == 0
    assert engine(family).requests_running == 0


@pytest.mark.usefixtures("_runs_ahead")
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"refresh_interval": 1},
        {"temperature": 1.0},
        {"temperature": 1.0, "top_p": 0.5},
        {"top_logprobs": 5},
        {"confidence": Confidence.MARGIN},
        {"confidence": Confidence.ENTROPY},
        {"confidence": Confidence.RANDOM},
        {"strategy": Strategy.THRESHOLD, "value": 0.5},
        {"strategy": Strategy.FACTOR, "value": 1.0},
        {"strategy": Strategy.ENTROPY_BOUND, "value": 1.0},
        {"wants_canvas": True},
    ],
    ids=str,
)
def test_every_way_of_decoding_notices(asked: dict[str, Any]) -> None:
    outcome = run_alone(engine(), make_request(prompt=[3, POISON], **asked))

    assert is_not_finite(outcome)
    assert outcome.tokens == []
    assert all(set(canvas.token_ids) == {-1} for canvas in outcome.canvases)
    assert used_pages(engine()) == 0


def test_a_score_that_is_no_number_fails_and_leaves_other_scores_alone() -> None:
    good = make_score("good", tokens=[3, 5, 7, 8], scored=[1, 3], masked_from=3)
    bad = make_score("bad", tokens=[3, POISON, 7, 8, 2], scored=[2, 4], masked_from=4)
    expected = run_all(engine(), [good])["good"]

    outcomes = run_all(engine(), [good, bad])

    assert is_not_finite(outcomes["bad"])
    assert isinstance(outcomes["good"].end, Scored)
    assert isinstance(expected.end, Scored)
    assert outcomes["good"].end.logprobs == pytest.approx(expected.end.logprobs, abs=1e-5)


def test_a_block_that_was_published_stays_when_a_later_one_breaks() -> None:
    fresh = make_engine(make_checkpoint(Path(mkdtemp(prefix="dllm-test-")), Size()))
    weights = fresh.runner.model.weights["embedding"]

    def break_weights(step: int) -> None:
        if step == 5:  # in the second block
            weights.fill_(1e30)

    outcome = run_all(fresh, [make_request(max_tokens=24)], after_step=break_weights)["r"]

    assert is_not_finite(outcome)
    assert len(outcome.tokens) == 8


def test_requests_in_a_row_make_the_model_unsound_until_one_ends_well() -> None:
    fresh = make_engine(write_poisoned(Path(mkdtemp(prefix="dllm-test-")), Size()))
    seen = []
    for _ in range(MOST_IN_A_ROW):
        run_alone(fresh, make_request(prompt=[POISON]))
        seen.append(fresh.soundness.is_sound)

    assert seen == [True] * (MOST_IN_A_ROW - 1) + [False]
    assert isinstance(run_alone(fresh, make_request()).end, Finished)
    assert fresh.soundness == Soundness(not_finite=MOST_IN_A_ROW, in_a_row=0)


def test_failures_between_answers_say_nothing_of_the_model() -> None:
    soundness = Soundness()
    for _ in range(10):
        soundness.note_not_finite()
        soundness.note_not_finite()
        soundness.note_finished()

    assert soundness.is_sound
    assert soundness.not_finite == 20


def test_the_moment_at_which_a_model_becomes_unsound_or_sound_is_logged_once() -> None:
    soundness = Soundness()

    with capture_logs() as logs:
        for _ in range(MOST_IN_A_ROW + 2):
            soundness.note_not_finite()
        soundness.note_finished()
        soundness.note_finished()

    assert [entry["log_level"] for entry in logs] == ["error", "info"]
