"""The embedded model's task families: reasoning-gym configurations, held-out seed, questions and checks."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from dllm_server.evaluation.calls import is_valid_call, make_call, same_call
from dllm_server.evaluation.fields import follows, make_fields, same_object
from dllm_server.evaluation.recall import MAX_ENTRIES, make_recall
from dllm_server.evaluation.reworded import reword
from dllm_server.evaluation.wording import Wording
from dllm_server.evaluation.words import words_from_reasoning_gym

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
    JSON_FIELDS = "json_fields"
    TOOL_CALLS = "tool_calls"


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
    Family.JSON_FIELDS: FamilyConfig(96),
    Family.TOOL_CALLS: FamilyConfig(96),
}


STRUCTURED = (Family.JSON_FIELDS, Family.TOOL_CALLS)


@dataclass(frozen=True, slots=True)
class EvalItem:
    """One question. `check` is the family's verifier: reasoning-gym's own, the same JSON or call, or the same
    text. `schema` is what a JSON answer follows, `tools` are those that may be called."""

    family: Family
    question: str
    answer: str
    check: Callable[[str], bool]
    max_tokens: int
    schema: Mapping[str, Any] | None = None
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def has_structure(self) -> bool:
        return self.schema is not None or bool(self.tools)

    def is_valid(self, answer: str) -> bool:
        """Whether `answer` follows the schema, or is a call of one of the tools."""
        if self.schema is not None:
            return follows(answer, self.schema)
        return is_valid_call(answer, self.tools)


def make_items(
    family: Family | str, count: int, seed: int = HELD_OUT_SEED, wording: Wording = Wording.ORIGINAL
) -> list[EvalItem]:
    """`count` questions of `family`, a function of seed and wording alone.

    Training excludes the first HELD_OUT_QUESTIONS questions of HELD_OUT_SEED of every wording. All but recall
    in its original wording, JSON fields and tool calls need reasoning-gym (the `evaluate` extra).
    """
    family = Family(family)
    match family:
        case Family.JSON_FIELDS | Family.TOOL_CALLS:
            return _structured_items(family, count, seed, wording)
        case Family.RECALL if wording is Wording.ORIGINAL:
            return _recall_items(count, seed)
        case _ if wording is Wording.ORIGINAL:
            return _gym_items(family, count, seed)
    words, rng = words_from_reasoning_gym(), random.Random(f"{seed}/{family}/{wording}")
    asked = (reword(rng, family, words, wording) for _ in range(count))
    limit = FAMILIES[family].max_tokens
    return [EvalItem(family, one.question, one.answer, one.answer.__eq__, limit) for one in asked]


def _structured_items(family: Family, count: int, seed: int, wording: Wording) -> list[EvalItem]:
    rng, limit = random.Random(f"{seed}/{family}/{wording}"), FAMILIES[family].max_tokens
    items = []
    for _ in range(count):
        if family is Family.JSON_FIELDS:
            made = make_fields(rng, wording)
            check = partial(same_object, expected=made.answer)
            items.append(EvalItem(family, made.question, made.answer, check, limit, schema=made.schema))
        else:
            called = make_call(rng, wording)
            check = partial(same_call, expected=called.answer)
            items.append(EvalItem(family, called.question, called.answer, check, limit, tools=called.tools))
    return items


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
