import random
from collections.abc import Callable

import pytest
import reasoning_gym
from dllm_server.evaluation.recall import make_recall, parse_recall
from dllm_server.evaluation.tasks import FAMILIES, HELD_OUT_SEED, Family, make_items
from dllm_server.evaluation.words import words_from_reasoning_gym
from hypothesis import given
from hypothesis import strategies as st

from training.tasks import (
    chain_sum,
    letter_counting,
    number_filtering,
    number_sorting,
    spell_backward,
    spiral_matrix,
    word_sequence_reversal,
    word_sorting,
)
from training.tasks.example import Example
from training.tasks.mixture import make_curriculum

WORDS = words_from_reasoning_gym()

REBUILD: dict[Family, Callable[[str], Example]] = {
    Family.CHAIN_SUM: lambda question: chain_sum.make(chain_sum.parse(question)),
    Family.NUMBER_SORTING: lambda question: number_sorting.make(*number_sorting.parse(question)),
    Family.WORD_SORTING: lambda question: word_sorting.make(*word_sorting.parse(question)),
    Family.SPELL_BACKWARD: lambda question: spell_backward.make(spell_backward.parse(question)),
    Family.LETTER_COUNTING: lambda question: letter_counting.make(*letter_counting.parse(question)),
    Family.WORD_SEQUENCE_REVERSAL: lambda question: word_sequence_reversal.make(
        word_sequence_reversal.parse(question)
    ),
    Family.NUMBER_FILTERING: lambda question: number_filtering.make(*number_filtering.parse(question)),
    Family.SPIRAL_MATRIX: lambda question: spiral_matrix.make(spiral_matrix.parse(question)),
}


@pytest.mark.parametrize("family", REBUILD)
def test_our_format_is_reasoning_gyms_own(family: Family) -> None:
    for item in make_items(family, 100, seed=7):
        assert REBUILD[family](item.question).question == item.question


@pytest.mark.parametrize("family", REBUILD)
def test_our_answers_satisfy_reasoning_gyms_verifier(family: Family) -> None:
    for item in make_items(family, 100, seed=7):
        assert item.check(REBUILD[family](item.question).answer)


@pytest.mark.parametrize("family", REBUILD)
def test_a_wrong_answer_is_refused(family: Family) -> None:
    for item in make_items(family, 10, seed=7):
        assert not item.check("nothing of the kind")


def test_items_are_a_function_of_the_seed() -> None:
    for family in FAMILIES:
        first, again, other = (make_items(family, 5, seed) for seed in (1, 1, 2))
        assert [item.question for item in first] == [item.question for item in again]
        assert [item.question for item in first] != [item.question for item in other]


def test_spans_for_letter_counting_come_from_reasoning_gyms_text() -> None:
    dataset = reasoning_gym.create_dataset("letter_counting", seed=1, size=1)

    assert tuple(dataset.words) == WORDS.running


@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_no_mixture_draws_a_held_out_question(progress: float) -> None:
    held_out = frozenset(item.question for item in make_items(Family.CHAIN_SUM, 500, HELD_OUT_SEED))
    mixture = make_curriculum(WORDS, held_out).at(progress)
    rng = random.Random(3)

    drawn = {example.question for _, example in (mixture.sample(rng) for _ in range(5_000))}

    assert not drawn & held_out


@given(st.integers(0, 2**32), st.integers(8, 140), st.integers(1, 8))
def test_a_recall_question_can_be_read_back(seed: int, entries: int, asked: int) -> None:
    recall = make_recall(random.Random(seed), entries=entries, asked=asked)

    assert parse_recall(recall.question) == recall
    assert parse_recall(recall.question).answer == recall.answer


@pytest.mark.parametrize(("entries", "asked"), [(5, 6), (20, 9), (141, 1), (5, 0)])
def test_recall_refuses_sizes_out_of_range(entries: int, asked: int) -> None:
    with pytest.raises(ValueError, match=r"exceeds|outside"):
        make_recall(random.Random(0), entries=entries, asked=asked)
