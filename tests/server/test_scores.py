"""The log probabilities that the engine gives equal a plain forward pass, whoever else is served."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from checkpoints import MASK, Size, make_checkpoint
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import (
    MOST_ALTERNATIVES,
    Failed,
    FailureReason,
    Finished,
    FinishReason,
    Score,
    Scored,
)
from engines import Outcome, collect, make_engine, make_request, make_score, run_all, run_alone, used_pages
from faulty_runner import install
from mixes import make_mix
from oracle import OracleModel, log_likelihoods

CLOSE = 5e-5  # float32, of logits that are spread wide
SIZES = {"llada": Size(n_kv_heads=2), "dream": Size(family="dream", n_kv_heads=2)}


@cache
def parts(name: str) -> tuple[Engine, OracleModel]:
    directory = make_checkpoint(Path(mkdtemp(prefix="dllm-test-")), SIZES[name])
    return make_engine(directory, max_num_batched_tokens=160), OracleModel(directory)


def fresh(name: str = "llada", *, runs_ahead: bool = False, refuse: Sequence[int] = ()) -> Engine:
    engine = parts(name)[0]
    install(engine, set(refuse))
    engine.throttle, engine.runs_ahead = type(engine.throttle)(), runs_ahead
    return engine


def make_scores(count: int, seed: int) -> list[Score]:
    dice, scores = random.Random(seed), []
    for number in range(count):
        tokens = [dice.randrange(MASK) for _ in range(dice.randint(2, 60))]
        scored = sorted(dice.sample(range(1, len(tokens)), dice.randint(1, min(9, len(tokens) - 1))))
        masked_from = dice.randint(1, len(tokens))
        asked = dice.choice((0, 1, MOST_ALTERNATIVES))
        scores.append(Score(f"s{number}", tokens, scored, masked_from, asked))
    return scores


def assert_right(name: str, score: Score, outcome: Outcome) -> None:
    end = outcome.end
    assert isinstance(end, Scored)
    expected = log_likelihoods(parts(name)[1], score.tokens, score.scored, score.masked_from)
    assert end.logprobs == pytest.approx(
        [float(expected[p][score.tokens[p]]) for p in score.scored], abs=CLOSE
    )
    assert len(end.top_logprobs) == (len(score.scored) if score.top_logprobs else 0)
    for position, named in zip(score.scored, end.top_logprobs, strict=False):
        best = expected[position].topk(score.top_logprobs).values.tolist()
        assert [logprob for _, logprob in named] == pytest.approx(best, abs=CLOSE)
        assert [float(expected[position][token]) for token, _ in named] == pytest.approx(best, abs=CLOSE)
    assert (end.stats.forward_passes, end.stats.refresh_passes) == (1, 1)


@pytest.mark.parametrize("name", SIZES)
def test_a_score_is_the_log_probability_of_a_plain_forward_pass(name: str) -> None:
    engine = fresh(name)

    for score in make_scores(20, seed=1):
        assert_right(name, score, run_alone(engine, score))

    assert used_pages(engine) == 0
    assert not engine.has_work


@pytest.mark.parametrize("runs_ahead", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_scores_and_generations_side_by_side_give_what_each_gives_alone(name: str, runs_ahead: bool) -> None:
    requests, scores = make_mix(16, seed=3), make_scores(24, seed=2)
    alone = run_all(fresh(name), requests)
    mixed: list[Any] = [*requests, *scores]
    random.Random(0).shuffle(mixed)

    together = run_all(fresh(name, runs_ahead=runs_ahead), mixed)

    for score in scores:
        assert_right(name, score, together[score.request_id])
    assert {r.request_id: together[r.request_id].tokens for r in requests} == {
        name: outcome.tokens for name, outcome in alone.items()
    }


def test_the_likeliest_token_scores_exactly_what_it_has_as_an_alternative() -> None:
    tokens = [3, 5, 7, 9, 11]
    asked = make_score(tokens=tokens, scored=[2], masked_from=2, top_logprobs=1)
    ((best, logprob),) = run_alone(fresh(), asked).end.top_logprobs[0]  # type: ignore[union-attr]

    tokens[2] = best

    assert run_alone(fresh(), make_score(tokens=tokens, scored=[2], masked_from=2)).end.logprobs == [logprob]  # type: ignore[union-attr]


@pytest.mark.parametrize("at", range(6))
def test_an_out_of_memory_error_in_any_step_loses_no_score_and_changes_none(at: int) -> None:
    requests, scores = make_mix(4, seed=5), make_scores(8, seed=4)

    outcomes = run_all(fresh(refuse=[at]), [*scores, *requests])

    for score in scores:
        assert_right("llada", score, outcomes[score.request_id])
    assert used_pages(parts("llada")[0]) == 0


def test_an_out_of_memory_error_that_stays_fails_the_score() -> None:
    engine = fresh(refuse=range(100))

    end = run_alone(engine, make_score()).end

    assert isinstance(end, Failed)
    assert end.reason is FailureReason.OUT_OF_MEMORY
    assert len(engine._free_slots) == engine.table.slots


@pytest.mark.parametrize("steps", [0, 1])
def test_a_cancelled_score_gives_everything_back(steps: int) -> None:
    engine, outcomes = fresh(runs_ahead=True), dict[str, Outcome]()
    collect(engine.submit(make_score()), outcomes)
    for _ in range(steps):
        collect(engine.step(), outcomes)

    collect(engine.cancel("s"), outcomes)

    run_all(engine, [])
    end = outcomes["s"].end
    assert isinstance(end, Finished)
    assert end.reason is FinishReason.CANCELLED
    assert len(engine._free_slots) == engine.table.slots


def test_a_score_waits_its_turn_and_lets_a_running_generation_go_on() -> None:
    engine = fresh()
    engine.submit(make_request("g", prompt=[1] * 100, max_tokens=20, value=1, block_length=20))
    engine.step()
    for number in range(50):
        engine.submit(make_score(str(number), tokens=[1] * 100, scored=[99], masked_from=100))
    generated = []
    for _ in range(engine.aging_steps * 3):
        before = engine.stats.committed_tokens
        engine.step()
        generated.append(engine.stats.committed_tokens - before)

    run_all(engine, [])

    assert sum(generated) == 19


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"tokens": []}, "the text is empty"),
        ({"tokens": [1, 64, 1, 1]}, "the text holds a token id outside the vocabulary of 64"),
        ({"tokens": [1] * 129}, "the text has 129 tokens, the longest served is 128"),
        ({"scored": []}, "positions to score are not an ascending list of at least one"),
        ({"scored": [2, 2]}, "positions to score are not an ascending list of at least one"),
        ({"scored": [4]}, "a position to score is outside 0 to 3"),
        ({"scored": [-1]}, "a position to score is outside 0 to 3"),
        ({"tokens": [1, 1, MASK, 1]}, f"the text holds the mask token {MASK} where it is to be scored"),
        ({"top_logprobs": 21}, "top_logprobs 21 is outside 0 to 20"),
    ],
)
def test_a_text_that_cannot_be_scored_is_refused(asked: dict[str, Any], problem: str) -> None:
    (refusal,) = fresh().submit(make_score(**asked))

    assert isinstance(refusal, Failed)
    assert refusal.reason is FailureReason.TOO_LARGE
    assert refusal.message.startswith(problem)


def test_shifted_logits_cannot_score_the_first_token() -> None:
    (refusal,) = fresh("dream").submit(make_score(scored=[0]))

    assert isinstance(refusal, Failed)
    assert refusal.message == "a position to score is outside 1 to 3"
