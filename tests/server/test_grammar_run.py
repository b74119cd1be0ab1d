"""Runs of tokens: whatever a model says, what is committed is the beginning of a text of the schema."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

import jsonschema
import numpy as np
import pytest
from byte_tokenizer import byte_model
from checkpoints import EOS, MASK
from dllm_server.settings import Strategy
from dllm_server.structure.bound import Bound
from dllm_server.structure.compiler import GrammarError, compile_grammar
from dllm_server.structure.grammar import Grammar, GrammarKind
from dllm_server.structure.match import GrammarMatch
from dllm_server.structure.run import Run
from dllm_server.structure.vocabulary import VocabularyFiles, load_vocabulary
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from llguidance import LLTokenizer
from schema_cases import items, record

ALWAYS = Bound(Strategy.THRESHOLD, 0.0, 1, -np.inf, counts_own=False)


@cache
def vocabulary() -> LLTokenizer:
    return load_vocabulary(VocabularyFiles(str(byte_model("llada")), 272, [EOS], MASK))


def compiled(grammar: Grammar) -> GrammarMatch:
    return GrammarMatch(compile_grammar(grammar, vocabulary()), MASK)


def bits(run: Run) -> list[int]:
    allowed = run.ask()
    return [] if allowed is None else np.unpackbits(allowed, bitorder="little").nonzero()[0].tolist()


def scalars() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
        st.builds(lambda a, b: {"type": "integer", "minimum": min(a, b), "maximum": max(a, b)},
                  st.integers(-50, 50), st.integers(-50, 50)),
        st.integers(0, 4).map(lambda most: {"type": "string", "maxLength": most}),
        st.lists(st.one_of(st.text(max_size=3), st.integers(), st.none()), min_size=1, max_size=3).map(
            lambda values: {"enum": values}
        ),
    )  # fmt: skip


def schemas() -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars(),
        lambda inner: st.one_of(
            st.builds(lambda one, least, more: items(one, least, least + more), inner, st.integers(0, 2),
                      st.integers(0, 2)),
            st.dictionaries(st.text('abé" ', max_size=3), inner, max_size=3).map(lambda of: record(**of)),
            st.lists(inner, min_size=1, max_size=2).map(lambda either: {"anyOf": either}),
        ),
        max_leaves=6,
    )  # fmt: skip


@given(schemas(), st.randoms(use_true_random=False), st.integers(1, 9), st.sampled_from([0.0, 0.5, 1.0]))
@hypothesis_settings(max_examples=40, deadline=None)
def test_every_commit_of_any_output_is_the_beginning_of_a_valid_text(
    schema: Any, dice: random.Random, room: int, sureness: float
) -> None:
    grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema))
    compilation = compile_grammar(grammar, vocabulary())
    match = GrammarMatch(compilation, MASK)
    bound = Bound(Strategy.THRESHOLD, 0.5, 1, 0.5, counts_own=False)
    text: list[int] = []
    for _ in range(400):
        if match.is_over:
            break
        run = Run(match, bound, room)
        run.begin(len(text))
        while allowed := bits(run):
            run.offer(dice.choice(allowed), -1.0, dice.random() * 0.5 + sureness / 2, 0.1)
        assert match.problem is None
        assert 1 <= len(run.tokens) <= room
        assert len(run.tokens) == len(run.logprobs)
        if dice.random() < 0.8:  # else the step has failed, and its tokens are gone
            text += run.tokens
        else:
            match.rewind(len(text))
        assert compilation.validate_tokens(text) == len(text)

    if match.is_over:
        written = vocabulary().decode_bytes([token for token in text if token != EOS]).decode()
        jsonschema.validate(json.loads(written), schema)


def test_a_token_below_the_bound_ends_the_run_but_for_the_first() -> None:
    match = compiled(Grammar(GrammarKind.REGEX, "[ab]{5}"))
    run = Run(match, Bound(Strategy.THRESHOLD, 0.9, 1, 0.9, counts_own=False), room=5)
    run.begin(0)

    taken = []
    for confidence in (0.1, 0.95, 0.5):
        taken.append(run.offer(bits(run)[0], -0.1, confidence, 0.0))

    assert taken == [True, True, False]
    assert run.ask() is None
    assert (len(run.tokens), match.length) == (2, 2)


BOUNDS = [
    (Bound(Strategy.QUOTA, 3.0, 3, np.inf, counts_own=False), (1, 0.0, 9.0, 9.0), True),
    (Bound(Strategy.QUOTA, 3.0, 3, np.inf, counts_own=False), (3, 1.0, 0.0, 0.0), False),
    (Bound(Strategy.THRESHOLD, 0.9, 1, 0.9, counts_own=False), (1, 0.9, 0.0, 0.0), True),
    (Bound(Strategy.THRESHOLD, 0.9, 1, 0.9, counts_own=False), (1, 0.89, 0.0, 0.0), False),
    (Bound(Strategy.FACTOR, 0.5, 1, np.inf, counts_own=False), (1, 0.84, 0.0, 0.0), True),
    (Bound(Strategy.FACTOR, 0.5, 1, np.inf, counts_own=False), (1, 0.83, 0.0, 0.0), False),
    (Bound(Strategy.ENTROPY_BOUND, 0.5, 1, np.inf, counts_own=False), (1, 0.0, 9.0, 0.5), True),
    (Bound(Strategy.ENTROPY_BOUND, 0.5, 1, np.inf, counts_own=False), (1, 0.0, 0.0, 0.6), False),
    (Bound(Strategy.ENTROPY_BOUND, 0.5, 1, np.inf, counts_own=True), (1, 0.0, 0.3, 0.1), True),
    (Bound(Strategy.ENTROPY_BOUND, 0.5, 1, np.inf, counts_own=True), (1, 0.0, 0.4, 0.1), False),
    (Bound(Strategy.JOINT_THRESHOLD, 0.9, 1, 0.9, counts_own=True), (2, 0.91, 0.0, 0.0), True),
]


@pytest.mark.parametrize(("bound", "asked", "admits"), BOUNDS)
def test_a_bound_admits_what_its_strategy_would(
    bound: Bound, asked: tuple[int, float, float, float], admits: bool
) -> None:
    assert bound.admits(*asked) is admits
    assert bound.admits(0, -1.0, 100.0, 100.0)  # the first is always taken


def test_what_is_forced_is_not_asked_for_and_counts_for_no_bound() -> None:
    run = Run(compiled(Grammar(GrammarKind.REGEX, "abc[xy]def[xy]")), ALWAYS, room=20)
    run.begin(0)

    run.offer(bits(run)[0], -0.5, 0.0, 0.0)
    run.offer(bits(run)[1], -0.7, 0.0, 0.0)

    assert run.ask() is None
    assert vocabulary().decode_str(run.tokens) == "abcxdefy"
    assert run.logprobs == [0.0, 0.0, 0.0, -0.5, 0.0, 0.0, 0.0, -0.7]
    assert run.match.is_over


def test_stops_are_not_allowed_before_their_place_unless_nothing_else_is() -> None:
    run = Run(compiled(Grammar(GrammarKind.REGEX, "a{1,3}")), ALWAYS, room=9, unended=9, stops=(EOS,))
    run.begin(0)

    assert run.ask() is None  # one token is allowed each time
    assert vocabulary().decode_str(run.tokens) == "aaa"
    assert run.match.is_over


def test_the_mask_is_never_allowed_even_where_its_name_is_text() -> None:
    match = compiled(Grammar(GrammarKind.JSON_SCHEMA, json.dumps({"enum": ["<|mask|>", "x"]})))
    run = Run(match, ALWAYS, room=40)
    run.begin(0)
    while allowed := bits(run):
        run.offer(min(allowed), 0.0, 1.0, 0.0)

    assert MASK not in run.tokens
    assert run.match.is_over


@pytest.mark.parametrize(
    "text", [f"start: <[{MASK}]>", f'start: "a" <[{MASK}]> "b"', f'start: "a" <[{MASK}]>?']
)
def test_a_grammar_that_asks_for_the_mask_gets_none(text: str) -> None:
    match = compiled(Grammar(GrammarKind.LARK, text))
    run = Run(match, ALWAYS, room=9, unended=9, stops=(EOS,))
    run.begin(0)
    while allowed := bits(run):
        run.offer(min(allowed), 0.0, 1.0, 0.0)

    assert MASK not in run.tokens
    assert match.is_over or match.problem == "it asks for the mask token, which is no text"


def test_a_grammar_that_becomes_too_complex_ends_the_run_with_its_words() -> None:
    class Failing(GrammarMatch):
        def allowed(self) -> Any:
            raise GrammarError("too complex")

    grammar = Grammar(GrammarKind.REGEX, "[ab]+")
    run = Run(Failing(compile_grammar(grammar, vocabulary()), MASK), ALWAYS, room=9)
    run.begin(0)

    assert run.ask() is None
    assert run.match.problem == "too complex"
