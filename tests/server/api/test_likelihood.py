"""What a likelihood is made of: the passes that are planned, and the estimate they make."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations
from math import comb
from typing import Any

import pytest
from dllm_server.api.answers.likelihood import Estimate, LikelihoodPlan, MaskedPass
from dllm_server.settings import DiffusionSettings


def make_plan(length: int, *, seed: int | None = None, **likelihood: Any) -> LikelihoodPlan:
    named = {f"likelihood_{name}": value for name, value in likelihood.items()}
    return LikelihoodPlan.of(length, DiffusionSettings(**named), seed)


def run(plan: LikelihoodPlan, logprob: Callable[[int, tuple[int, ...]], float]) -> list[float | None]:
    """The scores, where a pass that masks a set gives each position what ``logprob`` says."""
    estimate = Estimate(plan)
    for one in plan.passes():
        estimate.add(one, [logprob(position, one.scored) for position in one.scored], [])
    return [None if score is None else score.logprob for score in estimate.scores()]


def test_by_default_each_token_is_scored_once_with_itself_and_what_follows_masked() -> None:
    passes = list(make_plan(5).passes())

    assert passes == [MaskedPass(n, (n + 1,), n + 2, 1.0) for n in range(4)]


@pytest.mark.parametrize(
    ("start", "first"), [(1, 1), (3, 3), (6, 6), (9, 6), (-1, 5), (-4, 2), (-6, 1), (-99, 1)]
)
def test_tokens_before_the_start_are_given_and_have_no_score(start: int, first: int) -> None:
    scores = run(make_plan(6, start=start), lambda *_: -1.0)

    assert scores == [None] * first + [-1.0] * (6 - first)


def test_a_text_of_one_token_needs_no_pass() -> None:
    plan = make_plan(1)

    assert list(plan.passes()) == []
    assert run(plan, lambda *_: -1.0) == [None]


@pytest.mark.parametrize("block_length", [2, 3, 7, 100])
def test_a_pass_masks_a_part_of_one_block_and_all_that_follows_it(block_length: int) -> None:
    plan = make_plan(12, start=3, block_length=block_length, samples=20)

    for one in plan.passes():
        first = 3 + (one.scored[0] - 3) // block_length * block_length
        assert one.masked_from == min(first + block_length, 12)
        assert all(first <= position < one.masked_from for position in one.scored)
        assert list(one.scored) == sorted(set(one.scored))


def test_a_block_of_several_tokens_takes_as_many_passes_as_samples() -> None:
    assert len(list(make_plan(9, block_length=4, samples=5).passes())) == 2 * 5
    assert len(list(make_plan(10, block_length=4, samples=5).passes())) == 2 * 5 + 1  # one token is left


def test_the_estimate_of_a_block_is_the_papers_bound() -> None:
    size, dice = 4, random.Random(1)
    table: dict[tuple[int, tuple[int, ...]], float] = {}

    def logprob(position: int, masked: tuple[int, ...]) -> float:
        return table.setdefault((position, masked), -dice.random() * 5)

    positions = range(1, 1 + size)
    bound = sum(
        (1 / size) * (1 / comb(size, count)) * (size / count) * sum(logprob(p, masked) for p in masked)
        for count in range(1, size + 1)
        for masked in combinations(positions, count)
    )

    scores = run(make_plan(1 + size, block_length=99, samples=4096), logprob)

    assert sum(score for score in scores if score is not None) == pytest.approx(bound, rel=0.05)


def test_the_same_seed_gives_the_same_passes_and_none_is_a_seed_too() -> None:
    def passes(seed: int | None) -> list[MaskedPass]:
        return list(make_plan(20, block_length=7, samples=9, seed=seed).passes())

    assert passes(3) == passes(3) != passes(4)
    assert passes(None) == passes(None) == passes(0)


def test_a_blocks_masks_do_not_depend_on_the_blocks_before_it() -> None:
    whole = make_plan(20, start=2, block_length=6, samples=9).passes()
    later = make_plan(20, start=8, block_length=6, samples=9).passes()

    assert [one.scored for one in whole if one.scored[0] >= 8] == [one.scored for one in later]


def test_the_order_of_results_changes_nothing() -> None:
    plan = make_plan(9, block_length=4, samples=30)
    passes, dice = list(plan.passes()), random.Random(0)
    results = [[-dice.random() for _ in one.scored] for one in passes]
    likeliest = [[[(one.number, -0.1)] for _ in one.scored] for one in passes]

    def estimate(order: list[int]) -> Any:
        found = Estimate(plan)
        for number in order:
            found.add(passes[number], results[number], likeliest[number])
        return found.scores()

    shuffled = random.Random(2).sample(range(len(passes)), len(passes))
    assert estimate(shuffled) == estimate(list(range(len(passes))))


def test_the_likeliest_tokens_are_those_of_the_pass_that_masked_most() -> None:
    plan = make_plan(4, block_length=3, samples=2)
    estimate = Estimate(plan)
    estimate.add(MaskedPass(1, (1, 2, 3), 4, 0.5), [-1.0] * 3, [[(7, -0.1)]] * 3)
    estimate.add(MaskedPass(0, (1,), 4, 1.5), [-2.0], [[(8, -0.2)]])
    estimate.add(MaskedPass(2, (1, 2, 3), 4, 0.5), [-1.0] * 3, [[(9, -0.3)]] * 3)

    first = estimate.scores()[1]

    assert first is not None
    assert first.logprob == -0.5 - 3.0 - 0.5
    assert first.likeliest == [(7, -0.1)]
