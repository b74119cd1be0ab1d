"""Commit strategies against a slow loop over each row. Confidences are 64ths: sums and ties are exact."""

from __future__ import annotations

import torch
from dllm_server.engine.device.denoise import (
    by_entropy_bound,
    by_factor,
    by_quota,
    by_threshold,
    choose_commits,
)
from dllm_server.engine.requests.slots import STRATEGIES
from dllm_server.settings import Strategy
from hypothesis import given
from hypothesis import strategies as st

FUNCTIONS = {
    Strategy.QUOTA: by_quota,
    Strategy.THRESHOLD: by_threshold,
    Strategy.FACTOR: by_factor,
    Strategy.ENTROPY_BOUND: by_entropy_bound,
}
Cell = tuple[int, bool]
rows_of_cells = st.integers(1, 12).flatmap(
    lambda width: st.lists(
        st.lists(st.tuples(st.integers(0, 64), st.booleans()), min_size=width, max_size=width),
        min_size=1,
        max_size=4,
    )
)
values = {
    Strategy.QUOTA: st.integers(1, 14).map(float),
    Strategy.THRESHOLD: st.integers(1, 64).map(lambda n: n / 64),
    Strategy.FACTOR: st.integers(1, 200).map(lambda n: n / 64),
    Strategy.ENTROPY_BOUND: st.integers(1, 200).map(lambda n: n / 64),
}


def slow_commits(row: list[Cell], strategy: Strategy, value: float) -> list[bool]:
    """The columns of one row that are committed, by the definition of each strategy."""
    sign = -1 if strategy is Strategy.ENTROPY_BOUND else 1
    masked = [column for column, (_, is_masked) in enumerate(row) if is_masked]
    ranked = sorted(masked, key=lambda column: (-sign * row[column][0], column))
    numbers = [row[column][0] / 64 for column in ranked]
    match strategy:
        case Strategy.QUOTA:
            count = int(value)
        case Strategy.THRESHOLD:
            count = sum(number >= value for number in numbers)
        case Strategy.FACTOR:
            passing = [
                n
                for n, c in enumerate(numbers, 1)
                if c >= float(torch.tensor(1.0) - torch.tensor(value) / (n + 1))
            ]
            count = max(passing, default=1)
        case Strategy.ENTROPY_BOUND:
            count = sum(sum(numbers[:n]) <= value for n in range(len(numbers)))
    chosen = set(ranked[: max(count, 1)])
    return [column in chosen for column in range(len(row))]


def as_tensors(rows: list[list[Cell]]) -> tuple[torch.Tensor, torch.Tensor]:
    confidence = torch.tensor([[number / 64 for number, _ in row] for row in rows])
    return confidence, torch.tensor([[is_masked for _, is_masked in row] for row in rows])


@given(rows_of_cells, st.sampled_from(list(Strategy)), st.data())
def test_each_strategy_equals_the_slow_loop(
    rows: list[list[Cell]], strategy: Strategy, data: st.DataObject
) -> None:
    chosen = [data.draw(values[strategy]) for _ in rows]

    committed = FUNCTIONS[strategy](*as_tensors(rows), torch.tensor(chosen))

    assert committed.tolist() == [
        slow_commits(row, strategy, value) for row, value in zip(rows, chosen, strict=True)
    ]


@given(rows_of_cells, st.sampled_from(list(Strategy)), st.floats(0.01, 50))
def test_commits_are_masked_and_at_least_one_where_there_is_a_mask(
    rows: list[list[Cell]], strategy: Strategy, value: float
) -> None:
    confidence, is_masked = as_tensors(rows)
    bound = max(1.0, value) if strategy is Strategy.QUOTA else value

    committed = FUNCTIONS[strategy](confidence, is_masked, torch.full((len(rows),), bound))

    assert not (committed & ~is_masked).any()
    assert torch.equal(committed.any(1), is_masked.any(1))


@given(rows_of_cells, st.data())
def test_each_request_follows_its_own_strategy(rows: list[list[Cell]], data: st.DataObject) -> None:
    confidence, is_masked = as_tensors(rows)
    strategies = [data.draw(st.sampled_from(STRATEGIES)) for _ in rows]
    chosen = [data.draw(values[strategy]) for strategy in strategies]

    committed = choose_commits(
        confidence,
        confidence,
        is_masked,
        torch.tensor([STRATEGIES.index(strategy) for strategy in strategies]),
        torch.tensor(chosen),
        frozenset(strategies),
    )

    assert committed.tolist() == [
        slow_commits(row, strategy, value)
        for row, strategy, value in zip(rows, strategies, chosen, strict=True)
    ]


def test_ties_go_to_the_lower_position() -> None:
    confidence, is_masked = torch.full((1, 4), 0.5), torch.tensor([[False, True, True, True]])

    assert by_quota(confidence, is_masked, torch.tensor([2.0])).tolist() == [[False, True, True, False]]


def test_an_unmasked_position_of_full_confidence_is_not_counted() -> None:
    confidence, is_masked = torch.tensor([[1.0, 0.2, 0.3]]), torch.tensor([[False, True, True]])

    for strategy, value in ((Strategy.QUOTA, 1.0), (Strategy.THRESHOLD, 0.9), (Strategy.FACTOR, 0.1)):
        committed = FUNCTIONS[strategy](confidence, is_masked, torch.tensor([value]))
        assert committed.tolist() == [[False, False, True]]
