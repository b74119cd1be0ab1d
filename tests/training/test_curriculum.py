import random
from collections import Counter

import pytest
from dllm_server.evaluation.recall import MAX_ENTRIES, parse_recall
from dllm_server.evaluation.words import words_from_reasoning_gym

from training.tasks.mixture import (
    EARLY_RECALL_SHARE,
    EARLY_UNTIL,
    FAMILIES,
    SHARES,
    early_shares,
    make_curriculum,
)
from training.tasks.recall import MAX_SHORT_ENTRIES, MIN_ENTRIES

CURRICULUM = make_curriculum(words_from_reasoning_gym())
RECALL = FAMILIES.index("recall")


def list_lengths(progress: float, examples: int) -> list[int]:
    """Entries of the recall examples in their original wording among `examples` of all families."""
    rng = random.Random(4)
    drawn = [CURRICULUM.at(progress).sample(rng) for _ in range(examples)]
    questions = [example.question for family, example in drawn if family == RECALL]
    return [len(parse_recall(one).entries) for one in questions if one.startswith("Remember these entries: ")]


def test_the_shares_are_distributions() -> None:
    assert sum(SHARES.values()) == pytest.approx(1.0)
    assert sum(early_shares().values()) == pytest.approx(1.0)


def test_the_early_share_of_recall_is_taken_from_the_others_in_proportion() -> None:
    ratios = {name: share / SHARES[name] for name, share in early_shares().items() if name != "recall"}

    assert early_shares()["recall"] == EARLY_RECALL_SHARE
    assert list(ratios.values()) == pytest.approx([ratios["chain_sum"]] * (len(FAMILIES) - 1))


@pytest.mark.parametrize(
    ("progress", "is_early"),
    [(0.0, True), (EARLY_UNTIL - 1e-6, True), (EARLY_UNTIL, False), (0.6, False), (1.0, False)],
)
def test_families_are_drawn_by_the_shares_of_their_time(progress: float, is_early: bool) -> None:
    shares, rng = early_shares() if is_early else SHARES, random.Random(2)

    drawn = Counter(CURRICULUM.at(progress).sample(rng)[0] for _ in range(8_000))

    expected = {name: pytest.approx(share, abs=0.015) for name, share in shares.items()}
    assert {name: drawn[index] / 8_000 for index, name in enumerate(FAMILIES)} == expected


def test_early_lists_are_short_and_mostly_shorter_than_half_of_the_longest() -> None:
    lengths = list_lengths(0.0, 6_000)

    assert min(lengths) == MIN_ENTRIES
    assert max(lengths) == MAX_SHORT_ENTRIES
    assert sum(length <= MAX_SHORT_ENTRIES / 2 for length in lengths) / len(lengths) > 0.6


def test_later_lists_are_of_every_length() -> None:
    lengths = list_lengths(EARLY_UNTIL, 6_000)

    assert min(lengths) == MIN_ENTRIES
    assert max(lengths) > MAX_ENTRIES - 5
    assert sum(length > MAX_SHORT_ENTRIES for length in lengths) / len(lengths) > 0.3
