"""The embedded model's task families: reasoning-gym configurations, held-out seed, questions and checks."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dllm_server.evaluation.recall import MAX_ENTRIES, make_recall

HELD_OUT_SEED = 20_260_000
HELD_OUT_QUESTIONS = 500
BLOCK_TOKENS = 32


class Family(StrEnum):
    """The reasoning-gym families carry reasoning-gym's own dataset names."""

    CHAIN_SUM = "chain_sum"
    NUMBER_SORTING = "number_sorting"
    WORD_SORTING = "word_sorting"
    SPELL_BACKWARD = "spell_backward"
    LETTER_COUNTING = "letter_counting"
    WORD_SEQUENCE_REVERSAL = "word_sequence_reversal"
    NUMBER_FILTERING = "number_filtering"
    SPIRAL_MATRIX = "spiral_matrix"
    RECALL = "recall"


@dataclass(frozen=True, slots=True)
class FamilyConfig:
    """Difficulty in reasoning-gym's own parameters, and the canvas an answer needs."""

    max_tokens: int
    parameters: Mapping[str, int | float] = field(default_factory=dict)


FAMILIES: Mapping[Family, FamilyConfig] = {
    Family.CHAIN_SUM: FamilyConfig(32, {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 3}),
    Family.NUMBER_SORTING: FamilyConfig(64, {"min_numbers": 3, "max_numbers": 6, "max_decimals": 2}),
    Family.WORD_SORTING: FamilyConfig(
        64, {"min_words": 3, "max_words": 5, "min_word_length": 3, "max_word_length": 8}
    ),
    Family.SPELL_BACKWARD: FamilyConfig(32, {"min_word_len": 3, "max_word_len": 10}),
    Family.LETTER_COUNTING: FamilyConfig(32, {"min_words": 5, "max_words": 10}),
    Family.WORD_SEQUENCE_REVERSAL: FamilyConfig(64, {"min_words": 3, "max_words": 5}),
    Family.NUMBER_FILTERING: FamilyConfig(64, {"min_numbers": 3, "max_numbers": 6, "max_decimals": 2}),
    Family.SPIRAL_MATRIX: FamilyConfig(32, {"min_n": 2, "max_n": 4}),
    Family.RECALL: FamilyConfig(32, {"min_entries": 20, "max_entries": MAX_ENTRIES, "max_asked": 4}),
}


@dataclass(frozen=True, slots=True)
class EvalItem:
    """One question. `check` is the family's verifier: reasoning-gym's own, or exact match for recall."""

    family: Family
    question: str
    answer: str
    check: Callable[[str], bool]
    max_tokens: int


def make_items(family: Family | str, count: int, seed: int = HELD_OUT_SEED) -> list[EvalItem]:
    """`count` questions of `family`, a function of the seed alone.

    Training excludes the first HELD_OUT_QUESTIONS questions of HELD_OUT_SEED. Every family but recall needs
    reasoning-gym (the `evaluate` extra).
    """
    family = Family(family)
    return _recall_items(count, seed) if family is Family.RECALL else _gym_items(family, count, seed)


def _gym_items(family: Family, count: int, seed: int) -> list[EvalItem]:
    import reasoning_gym  # of the extra `evaluate`

    config = FAMILIES[family]
    dataset = reasoning_gym.create_dataset(family.value, seed=seed, size=count, **config.parameters)

    def verifier(entry: dict[str, Any]) -> Callable[[str], bool]:
        return lambda answer: float(dataset.score_answer(answer, entry)) == 1.0

    return [
        EvalItem(family, entry["question"], entry["answer"], verifier(entry), config.max_tokens)
        for entry in (dataset[index] for index in range(count))
    ]


def _recall_items(count: int, seed: int) -> list[EvalItem]:
    config = FAMILIES[Family.RECALL]
    rng = random.Random(seed)
    items = []
    for _ in range(count):
        entries = rng.randint(int(config.parameters["min_entries"]), int(config.parameters["max_entries"]))
        recall = make_recall(rng, entries=entries, asked=rng.randint(1, int(config.parameters["max_asked"])))
        items.append(
            EvalItem(Family.RECALL, recall.question, recall.answer, recall.answer.__eq__, config.max_tokens)
        )
    return items
