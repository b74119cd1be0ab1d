"""Which cases of a sampled test run."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.sampling import sample


@dataclass(frozen=True)
class Item:
    nodeid: str
    share: float | None
    of: str | None = None

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        assert name == "sampled"
        return None if self.share is None else pytest.mark.sampled(self.share, of=self.of).mark


def chosen(items: list[Item], seed: str) -> list[Item]:
    return sample(items, seed)  # type: ignore[arg-type, return-value]


ALWAYS = [Item("a.py::test_always[1]", None), Item("a.py::test_always[2]", None)]
MANY = [Item(f"a.py::test_many[{number}]", 0.25) for number in range(10)]
ONE = [Item("b.py::test_one", 0.01)]


def test_a_share_of_each_marked_test_runs_and_all_of_the_others_in_their_order() -> None:
    items = [*ALWAYS, *MANY, *ONE]

    found = chosen(items, "seed")

    assert len([item for item in found if item in MANY]) == 3
    assert [item for item in found if item not in MANY] == [*ALWAYS, *ONE]
    assert found == sorted(found, key=items.index)


def test_a_seed_repeats_its_choice_and_all_seeds_together_take_every_case() -> None:
    assert chosen(MANY, "1") == chosen(list(MANY), "1")
    assert {item for seed in range(100) for item in chosen(MANY, str(seed))} == set(MANY)


def test_tests_that_say_the_same_are_cases_of_one_thing() -> None:
    two = [Item("a.py::test_one", 0.5, "streams"), Item("b.py::test_another", 0.5, "streams")]
    assert {len(chosen(two, str(seed))) for seed in range(20)} == {1}
    assert {item for seed in range(20) for item in chosen(two, str(seed))} == set(two)
