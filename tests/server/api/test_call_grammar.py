"""Grammars of answers that must call tools: what they let through is read as calls, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dllm_server.api.answers.call_grammar import answer_grammar, marked_grammar
from dllm_server.api.schemas.tools import Tool
from dllm_server.api.text.parts import Called, Thought
from dllm_server.api.text.speech import Markup, Speech, Thinking
from dllm_server.models.tokenizer import Tokenizer
from dllm_server.settings import ToolCallParser
from dllm_server.structure.compiler import compile_grammar
from dllm_server.structure.vocabulary import VocabularyFiles, load_vocabulary
from llguidance import LLTokenizer
from tool_templates import LOOK, MARKERS, make_tokenizer

TREE: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "plant",
        "parameters": {
            "type": "object",
            "properties": {"size": {"$ref": "#/$defs/size"}, "in": {"$ref": "#"}},
            "required": ["size"],
            "additionalProperties": False,
            "$defs": {"size": {"type": "integer"}},
        },
    },
}
NOTHING: dict[str, Any] = {"type": "function", "function": {"name": "wait"}}
TOOLS = [Tool.model_validate(tool) for tool in (LOOK, TREE, NOTHING)]
NAMES = frozenset(tool.function.name for tool in TOOLS)
HERMES, LLAMA3 = ToolCallParser.HERMES, ToolCallParser.LLAMA3_JSON


@pytest.fixture(scope="module", params=[True, False], ids=["special", "added"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, LLTokenizer]:
    directory: Path = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer(directory, are_special=request.param)
    return tokenizer, load_vocabulary(VocabularyFiles(str(directory), 1024, [0], 1))


def call(parser: ToolCallParser, name: str, arguments: str) -> str:
    key = "arguments" if parser is HERMES else "parameters"
    written = f'{{"name": "{name}", "{key}": {arguments}}}'
    return f"<tool_call>\n{written}\n</tool_call>" if parser is HERMES else written


def follows(
    model: tuple[Tokenizer, LLTokenizer], markup: Markup, text: str, schema: str | None = None
) -> bool:
    """Whether the whole text is one that the grammar allows."""
    tokenizer, vocabulary = model
    grammar = answer_grammar(markup, TOOLS, schema, tokenizer.added_ids(MARKERS))
    matcher = compile_grammar(grammar, vocabulary)
    ids = tokenizer.encode(text, add_special_tokens=False)
    return matcher.try_consume_tokens(ids) == len(ids) and bool(matcher.is_accepting())


@pytest.mark.parametrize("thinking", [Thinking.NO, Thinking.OPEN])
@pytest.mark.parametrize("parser", ToolCallParser)
def test_calls_that_follow_their_schemas_pass_and_are_read(
    model: tuple[Tokenizer, LLTokenizer], parser: ToolCallParser, thinking: Thinking
) -> None:
    markup = Markup(thinking=thinking, calls=parser, tools=NAMES)
    made = [("look", '{"at": "Lyon"}'), ("plant", '{"size": 5, "in": {"size": 3}}'), ("wait", "{}")]
    separator = "\n" if parser is HERMES else "; "
    thoughts = "Hm. <b>\n</think>\n\n" if thinking is Thinking.OPEN else ""
    text = thoughts + separator.join(call(parser, *each) for each in made)

    speech = Speech(markup)
    parts = [*speech.push(text), *speech.flush()]

    assert follows(model, markup, text)
    assert [part for part in parts if not isinstance(part, Thought)] == [Called(*each) for each in made]


@pytest.mark.parametrize("parser", ToolCallParser)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("look", "{}"),
        ("look", '{"at": 5}'),
        ("plant", '{"size": "5"}'),
        ("plant", '{"size": 5, "in": {}}'),
        ("plant", '{"size": 5, "at": "Lyon"}'),
        ("walk", "{}"),
    ],
)
def test_calls_that_do_not_follow_them_are_stopped(
    model: tuple[Tokenizer, LLTokenizer], parser: ToolCallParser, name: str, arguments: str
) -> None:
    assert not follows(model, Markup(calls=parser, tools=NAMES), call(parser, name, arguments))


@pytest.mark.parametrize("parser", ToolCallParser)
def test_an_answer_of_one_call_has_one(model: tuple[Tokenizer, LLTokenizer], parser: ToolCallParser) -> None:
    markup = Markup(calls=parser, tools=NAMES, is_one_call=True)
    one = call(parser, "wait", "{}")

    assert follows(model, markup, one)
    assert not follows(model, markup, one + ("\n" if parser is HERMES else "; ") + one)
    assert not follows(model, markup, "I wait.")
    assert not follows(model, markup, "")


@pytest.mark.parametrize("is_one_call", [False, True])
@pytest.mark.parametrize("parser", ToolCallParser)
def test_behind_a_marker_only_calls_pass(
    model: tuple[Tokenizer, LLTokenizer], parser: ToolCallParser, is_one_call: bool
) -> None:
    tokenizer, vocabulary = model
    markup = Markup(calls=parser, tools=NAMES, is_one_call=is_one_call)
    grammar = marked_grammar(markup, TOOLS, tokenizer.added_ids(MARKERS))

    def passes(text: str) -> bool:
        matcher = compile_grammar(grammar, vocabulary)
        ids = tokenizer.encode(text, add_special_tokens=False)
        return matcher.try_consume_tokens(ids) == len(ids) and bool(matcher.is_accepting())

    def behind(*calls: tuple[str, str]) -> str:
        return "; ".join(call(parser, *each) for each in calls).removeprefix("<tool_call>")

    assert passes(behind(("look", '{"at": "Lyon"}')))
    assert passes(behind(("plant", '{"size": 5, "in": {"size": 3}}')))
    assert not passes(behind(("look", '{"at": 5}')))
    assert not passes(behind(("walk", "{}")))
    assert not passes("a text")
    several = behind(("wait", "{}"), ("wait", "{}"))
    assert passes(several) is (parser is LLAMA3 and not is_one_call)


def test_a_text_of_a_schema_may_stand_for_calls(model: tuple[Tokenizer, LLTokenizer]) -> None:
    markup = Markup(calls=HERMES, tools=NAMES)
    schema = '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'

    assert follows(model, markup, '{"a":1}', schema)
    assert follows(model, markup, call(HERMES, "wait", "{}"), schema)
    assert not follows(model, markup, '{"a":"1"}', schema)
    assert not follows(model, markup, "I wait.", schema)


def test_no_name_can_break_out_of_the_grammar() -> None:
    """Names are letters, digits and a few signs; texts of schemas are JSON."""
    tool = {"function": LOOK["function"] | {"parameters": {"const": '"}\nstart: "x"'}}, "type": "function"}
    grammar = answer_grammar(Markup(calls=HERMES), [Tool.model_validate(tool)], None, [])

    assert [line for line in grammar.text.splitlines() if line.startswith("start")] == ["start: calls"]
    assert json.dumps('"}\nstart: "x"') in grammar.text
