"""Grammars, compiled and checked with a real tokenizer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import dllm_server
import pytest
from dllm_server.structure.checker import GrammarChecker
from dllm_server.structure.compiler import GrammarError, compile_grammar
from dllm_server.structure.grammar import ANY_OBJECT, LONGEST_TEXT, Grammar, GrammarKind
from dllm_server.structure.vocabulary import VocabularyFiles, load_vocabulary
from llguidance import LLTokenizer

EMBEDDED = VocabularyFiles(str(Path(dllm_server.__file__).parent / "models/embedded"), 512, [0], 1)


@cache
def vocabulary() -> LLTokenizer:
    return load_vocabulary(EMBEDDED)


def schema(value: Any) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(value))


def accepts(grammar: Grammar, text: str) -> bool:
    matcher = compile_grammar(grammar, vocabulary())
    tokens = vocabulary().tokenize_str(text)
    return (
        matcher.validate_tokens(tokens) == len(tokens)
        and matcher.consume_tokens(tokens)
        and matcher.is_accepting()
    )


CASES = [
    (schema({"type": "object", "properties": {"a": {"type": "integer"}}}), '{"a":1}', '{"a":"1"}'),
    (schema({"type": "array", "items": {"type": "integer"}}), "[1,2]", "[1, 2]"),
    (schema(True), '"text"', "text"),
    (ANY_OBJECT, '{"a":[1,{"b":null}]}', "[]"),
    (Grammar(GrammarKind.REGEX, "[a-c]{2,3}"), "abc", "abcd"),
    (Grammar(GrammarKind.CHOICE, json.dumps(["yes", 'a "quote"\n', "naïve"])), 'a "quote"\n', "no"),
    (Grammar(GrammarKind.CHOICE, json.dumps(["yes", "naïve"])), "naïve", "naive"),
    (Grammar(GrammarKind.LARK, 'start: "a" b*\nb: "b"'), "abb", "ba"),
    (Grammar(GrammarKind.EBNF, 'root ::= "a" b*\nb ::= "b"'), "abb", "ba"),
]


@pytest.mark.parametrize(("grammar", "right", "wrong"), CASES)
def test_a_grammar_takes_its_texts_and_no_others(grammar: Grammar, right: str, wrong: str) -> None:
    assert accepts(grammar, right)
    assert not accepts(grammar, wrong)


REFUSED = [
    (schema({"not": {"type": "string"}}), "Unimplemented keys"),
    (schema({"type": "strnig"}), "strnig"),
    (schema({"$ref": "http://example.com/x"}), "not present in a registry"),
    (schema({"type": "string", "enum": [1]}), "Unsatisfiable"),
    (schema([]), "a schema is an object"),
    (Grammar(GrammarKind.JSON_SCHEMA, "{"), "Expecting"),
    (Grammar(GrammarKind.JSON_SCHEMA, '{"items":' * 10_000), "nested too deeply"),
    (Grammar(GrammarKind.REGEX, "(a"), "unclosed group"),
    (Grammar(GrammarKind.CHOICE, "[]"), "at least one text"),
    (Grammar(GrammarKind.CHOICE, "[1]"), "at least one text"),
    (Grammar(GrammarKind.LARK, "start: foo"), 'unknown name: "foo"'),
    (Grammar(GrammarKind.EBNF, "root ::= ("), "at line"),
    (Grammar(GrammarKind.REGEX, "a" * (LONGEST_TEXT + 1)), "bytes"),
]


@pytest.mark.parametrize(("grammar", "words"), REFUSED)
def test_what_cannot_be_followed_is_refused_in_the_compilers_words(grammar: Grammar, words: str) -> None:
    with pytest.raises(GrammarError, match=words):
        compile_grammar(grammar, vocabulary())


def test_a_tokenizer_that_does_not_say_its_bytes_is_refused() -> None:
    fixture = Path(__file__).resolve().parents[1] / "fixtures/llada_mha"

    with pytest.raises(GrammarError, match="cannot be held to a grammar"):
        load_vocabulary(VocabularyFiles(str(fixture), 1024, [1001], 1000))


@pytest.mark.parametrize("text", ["{", "[1]", '{"added_tokens": [{"id": 0}]}'])
def test_a_broken_tokenizer_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(text)

    with pytest.raises(GrammarError, match="cannot be held to a grammar"):
        load_vocabulary(VocabularyFiles(str(tmp_path), 512, [0], 1))


@asynccontextmanager
async def make_checker(files: VocabularyFiles = EMBEDDED) -> AsyncIterator[GrammarChecker]:
    checker = GrammarChecker(files)
    try:
        yield checker
    finally:
        await checker.close()


ENDLESS = schema({"allOf": [{"type": "string", "pattern": f".*{chr(97 + i)}.*"} for i in range(24)]})


def test_a_compilation_without_end_is_a_refusal_and_the_next_grammar_is_checked() -> None:
    async def run() -> None:
        async with make_checker() as checker:
            with pytest.raises(GrammarError, match="takes more than 1 s"):
                await checker.check(ENDLESS)
            await checker.check(ANY_OBJECT)
            with pytest.raises(GrammarError, match="Unimplemented keys"):
                await checker.check(schema({"not": {}, "type": "string"}))

    asyncio.run(run())


def test_one_grammar_that_many_ask_about_is_compiled_once_also_when_one_leaves() -> None:
    async def run() -> None:
        async with make_checker() as checker:
            asking = [asyncio.create_task(checker.check(ANY_OBJECT)) for _ in range(3)]
            await asyncio.sleep(0)
            asking[0].cancel()
            await asyncio.gather(*asking[1:])
            worker, checker._worker = checker._worker, None  # nobody is asked again
            await checker.check(ANY_OBJECT)
            assert checker._worker is None
            checker._worker = worker

    asyncio.run(run())


def test_a_closed_checker_leaves_no_process() -> None:
    async def run() -> None:
        async with make_checker() as checker:
            await checker.check(ANY_OBJECT)
            worker = checker._worker
            assert worker is not None
        assert worker.returncode is not None

    asyncio.run(run())
