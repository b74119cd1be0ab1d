"""Commit strategies against a slow loop over each row. Confidences are 64ths: sums and ties are exact."""

from __future__ import annotations

import math

import torch
from dllm_server.engine.device.denoise import CommitRule, choose_commits
from dllm_server.engine.requests.slots import STRATEGIES
from dllm_server.settings import Strategy
from hypothesis import given
from hypothesis import strategies as st

BY_QUOTA, BY_THRESHOLD = (Strategy.QUOTA, Strategy.SEQUENTIAL), (Strategy.THRESHOLD, Strategy.JOINT_THRESHOLD)
Cell = tuple[int, bool]
rows_of_cells = st.integers(1, 12).flatmap(
    lambda width: st.lists(
        st.lists(st.tuples(st.integers(0, 64), st.booleans()), min_size=width, max_size=width),
        min_size=1,
        max_size=4,
    )
)
values = {
    **dict.fromkeys(BY_QUOTA, st.integers(1, 14).map(float)),
    **dict.fromkeys(BY_THRESHOLD, st.integers(1, 64).map(lambda n: n / 64)),
    Strategy.FACTOR: st.integers(1, 200).map(lambda n: n / 64),
    Strategy.ENTROPY_BOUND: st.integers(1, 200).map(lambda n: n / 64),
}


def slow_commits(
    row: list[Cell], strategy: Strategy, value: float, *, counts_own: bool = False
) -> list[bool]:
    """The columns of one row that are committed, by the definition of each strategy; those that go from left
    to right are told so by their confidences."""
    sign = -1 if strategy is Strategy.ENTROPY_BOUND else 1
    masked = [column for column, (_, is_masked) in enumerate(row) if is_masked]
    ranked = sorted(masked, key=lambda column: (-sign * row[column][0], column))
    numbers = [row[column][0] / 64 for column in ranked]
    match strategy:
        case Strategy.QUOTA | Strategy.SEQUENTIAL:
            count = int(value)
        case Strategy.THRESHOLD | Strategy.JOINT_THRESHOLD:
            count = sum(number >= value for number in numbers)
        case Strategy.FACTOR:
            passing = [
                n
                for n, c in enumerate(numbers, 1)
                if c >= float(torch.tensor(1.0) - torch.tensor(value) / (n + 1))
            ]
            count = max(passing, default=1)
        case Strategy.ENTROPY_BOUND if counts_own:
            count = sum(sum(numbers[: n + 1]) < value for n in range(len(numbers)))
        case Strategy.ENTROPY_BOUND:
            count = sum(sum(numbers[:n]) <= value for n in range(len(numbers)))
    chosen = set(ranked[: max(count, 1)])
    return [column in chosen for column in range(len(row))]


def as_tensors(rows: list[list[Cell]]) -> tuple[torch.Tensor, torch.Tensor]:
    confidence = torch.tensor([[number / 64 for number, _ in row] for row in rows])
    return confidence, torch.tensor([[is_masked for _, is_masked in row] for row in rows])


def commit(
    rows: list[list[Cell]], strategies: list[Strategy], chosen: list[float], *, counts_own: bool = False
) -> torch.Tensor:
    """Every row by its own strategy and value."""
    confidence, is_masked = as_tensors(rows)
    pairs = list(zip(strategies, chosen, strict=True))
    rule = CommitRule(
        quota=torch.tensor([int(value) if name in BY_QUOTA else 1 for name, value in pairs]),
        threshold=torch.tensor([value if name in BY_THRESHOLD else math.inf for name, value in pairs]),
        value=torch.tensor(chosen),
        strategy=torch.tensor([STRATEGIES.index(name) for name in strategies]),
        strategies=frozenset(strategies),
        counts_own=counts_own,
    )
    return choose_commits(confidence, confidence, is_masked, rule)


@given(rows_of_cells, st.sampled_from(list(Strategy)), st.booleans(), st.data())
def test_each_strategy_equals_the_slow_loop(
    rows: list[list[Cell]], strategy: Strategy, counts_own: bool, data: st.DataObject
) -> None:
    chosen = [data.draw(values[strategy]) for _ in rows]

    committed = commit(rows, [strategy] * len(rows), chosen, counts_own=counts_own)

    assert committed.tolist() == [
        slow_commits(row, strategy, value, counts_own=counts_own)
        for row, value in zip(rows, chosen, strict=True)
    ]


@given(rows_of_cells, st.sampled_from(list(Strategy)), st.floats(0.01, 50))
def test_commits_are_masked_and_at_least_one_where_there_is_a_mask(
    rows: list[list[Cell]], strategy: Strategy, value: float
) -> None:
    is_masked = as_tensors(rows)[1]
    bound = max(1.0, value) if strategy in BY_QUOTA else value

    committed = commit(rows, [strategy] * len(rows), [bound] * len(rows))

    assert not (committed & ~is_masked).any()
    assert torch.equal(committed.any(1), is_masked.any(1))


@given(rows_of_cells, st.data())
def test_each_request_follows_its_own_strategy(rows: list[list[Cell]], data: st.DataObject) -> None:
    strategies = [data.draw(st.sampled_from(STRATEGIES)) for _ in rows]
    chosen = [data.draw(values[strategy]) for strategy in strategies]

    committed = commit(rows, strategies, chosen)

    assert committed.tolist() == [
        slow_commits(row, strategy, value)
        for row, strategy, value in zip(rows, strategies, chosen, strict=True)
    ]


def test_ties_go_to_the_lower_position() -> None:
    row = [(32, False), (32, True), (32, True), (32, True)]

    assert commit([row], [Strategy.QUOTA], [2.0]).tolist() == [[False, True, True, False]]


def test_an_unmasked_position_of_full_confidence_is_not_counted() -> None:
    row = [(64, False), (13, True), (19, True)]

    for strategy, value in ((Strategy.QUOTA, 1.0), (Strategy.THRESHOLD, 0.9), (Strategy.FACTOR, 0.1)):
        assert commit([row], [strategy], [value]).tolist() == [[False, False, True]]
