"""Many wordings a family, none of which is one of those that are held out."""

from __future__ import annotations

import json
import random
import re

import pytest
from dllm_server.evaluation import calls, fields
from dllm_server.evaluation.reworded import DRAWINGS, reword
from dllm_server.evaluation.tasks import STRUCTURED, Family, make_items
from dllm_server.evaluation.wording import Wording, expand, plain
from dllm_server.evaluation.wordings import wordings_of
from dllm_server.evaluation.words import words_from_reasoning_gym

from training.tasks.mixture import make_curriculum
from training.tokenizer import SPECIAL_TOKENS, build_tokenizer

WORDS = words_from_reasoning_gym()
LEAST_WORDINGS = 20
LEAST_HELD_OUT = 5
TOKENIZER = build_tokenizer()


def as_letters(text: str) -> str:
    return re.sub(r"[^a-z{}]", "", text)


def expression_of(pattern: str) -> re.Pattern[str]:
    """What ``pattern`` can be, as ``as_letters`` leaves it."""
    marks = {"[": "(?:", "]": ")", "|": "|"}
    parts = re.split(r"([\[\]|])", pattern.lower().removeprefix("~"))
    return re.compile("".join(marks.get(part) or re.escape(as_letters(part)) for part in parts))


VARIANTS = [(family.value, variant) for family in Family for variant in wordings_of(family).trained]


@pytest.mark.parametrize("family", Family)
def test_a_family_has_twenty_wordings_and_held_out_ones(family: Family) -> None:
    wordings, rng = wordings_of(family), random.Random(1)
    trained = {
        plain(expand(rng, pattern))
        for patterns in wordings.trained.values()
        for pattern in patterns
        for _ in range(20)
    }

    assert len(trained) >= LEAST_WORDINGS
    assert sum(map(len, wordings.held_out.values())) >= LEAST_HELD_OUT
    assert wordings.trained.keys() == wordings.held_out.keys()


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_no_trained_pattern_can_be_a_held_out_wording(family: str, variant: str) -> None:
    wordings = wordings_of(family)
    expressions = [expression_of(pattern) for pattern in wordings.trained[variant]]

    trained = [
        text
        for text in wordings.held_out[variant]
        if any(expression.fullmatch(as_letters(plain(text))) for expression in expressions)
    ]

    assert trained == []


def test_a_trained_wording_would_be_found() -> None:
    pattern = "~[Sort|Order] {list} [in|into] [rising|falling] order[:|]"

    assert expression_of(pattern).fullmatch(as_letters(plain("Could you sort {list} into falling order!")))
    assert not expression_of(pattern).fullmatch(as_letters(plain("Sort {list} by falling order")))


def test_the_sentence_that_people_tried_first_is_a_trained_wording() -> None:
    asked = plain("Sort these words in ascending order{tail}")

    patterns = wordings_of(Family.WORD_SORTING).trained["ascending"]

    assert any(expression_of(pattern).fullmatch(as_letters(asked)) for pattern in patterns)


@pytest.mark.parametrize("wording", [Wording.TRAINED, Wording.HELD_OUT])
@pytest.mark.parametrize("family", [*DRAWINGS, *STRUCTURED])
def test_a_question_has_its_slots_filled_and_its_answer_is_right(family: str, wording: Wording) -> None:
    for item in make_items(family, 40, seed=3, wording=wording):
        assert not re.search(r"\{\w+\}|[~|]", item.question)
        assert item.check(item.answer)
        assert not item.check("nothing of the kind")
        assert len(TOKENIZER.encode(item.answer).ids) < item.max_tokens


def test_a_reworded_question_is_a_function_of_the_seed() -> None:
    first, again, other = (
        reword(random.Random(seed), "recall", WORDS, Wording.TRAINED) for seed in (1, 1, 2)
    )

    assert first == again
    assert first != other


@pytest.mark.parametrize("family", STRUCTURED)
def test_an_answer_of_structure_follows_its_schema_or_tools(family: Family) -> None:
    for item in make_items(family, 40, seed=5):
        assert item.is_valid(item.answer)
        assert not item.is_valid(item.answer[:-2])
        assert not item.is_valid(item.answer.replace('"', '"x', 1))


@pytest.mark.parametrize(
    ("answer", "is_valid"),
    [
        ('{"age":3,"kind":"cat"}', True),
        ('{"kind": "cat", "age": 3}', True),
        ('{"age":true,"kind":"cat"}', False),
        ('{"age":"3","kind":"cat"}', False),
        ('{"age":3,"kind":"cow"}', False),
        ('{"age":3}', False),
        ('{"age":3,"kind":"cat","more":1}', False),
        ("[]", False),
    ],
)
def test_what_follows_a_schema(answer: str, is_valid: bool) -> None:
    properties = {"age": {"type": "integer"}, "kind": {"type": "string", "enum": ["cat", "dog"]}}

    assert fields.follows(answer, {"properties": properties}) == is_valid


@pytest.mark.parametrize(
    ("arguments", "closing", "is_valid"),
    [
        ({"a": 1, "b": 2}, {}, True),
        ({"a": 1}, {}, False),
        ({"a": 1, "b": "2"}, {}, False),
        ({"a": 1, "b": 2, "c": "3"}, {}, True),  # as in JSON Schema
        ({"a": 1, "b": 2, "c": "3"}, {"additionalProperties": False}, False),
    ],
)
def test_what_is_a_call_of_a_tool(
    arguments: dict[str, object], closing: dict[str, bool], is_valid: bool
) -> None:
    parameters = {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
    tools = [{"type": "function", "function": {"name": "add", "parameters": parameters | closing}}]

    assert calls.is_valid_call(calls.call("add", arguments), tools) == is_valid
    assert not calls.is_valid_call(calls.call("subtract", arguments), tools)
    assert not calls.is_valid_call(json.dumps({"name": "add", "arguments": arguments}), tools)


def test_two_tools_are_given_of_which_the_asked_one_is_one() -> None:
    rng = random.Random(2)
    for _ in range(50):
        made = calls.make_call(rng, Wording.TRAINED)
        names = [tool["function"]["name"] for tool in made.tools]
        assert len(set(names)) == 2
        assert (
            json.loads(made.answer.removeprefix(calls.OPENING).removesuffix(calls.CLOSING))["name"] in names
        )


def test_only_answers_hold_special_tokens() -> None:
    """Elsewhere the server reads their names as ordinary text, and training would not."""
    mixture, rng = make_curriculum(WORDS).whole, random.Random(6)
    for _ in range(1_000):
        _, example = mixture.sample(rng)
        assert not any(token in example.question for token in SPECIAL_TOKENS)
