"""What holds calls that need not be made, with a real tokenizer and compiler."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dllm_server.api.answers.auto_calls import AutoCalls, auto_calls
from dllm_server.api.answers.call_grammar import marked_grammar
from dllm_server.api.answers.markup import Dialect
from dllm_server.api.schemas.errors import ApiError
from dllm_server.api.schemas.tools import Tool
from dllm_server.api.text.speech import Markup
from dllm_server.models.tokenizer import Tokenizer
from dllm_server.settings import ToolCallParser
from dllm_server.structure.checker import SlowGrammarError
from dllm_server.structure.compiler import GrammarError, compile_grammar
from dllm_server.structure.grammar import Grammar
from dllm_server.structure.vocabulary import VocabularyFiles, load_vocabulary
from tool_templates import LOOK, make_tokenizer

MARKUP = Markup(calls=ToolCallParser.HERMES)
SLOW = "slow"


def tool(name: str, schema: Any = None, *, strict: bool | None = None) -> Tool:
    function = {"name": name, "parameters": schema, "strict": strict}
    return Tool.model_validate({"type": "function", "function": function})


LOOKING = Tool.model_validate(LOOK)
UNKNOWN = tool("unknown", {"not": {}})
LARGE = [tool(f"large{place}", {"enum": [f"{n:>1000}" for n in range(60)]}) for place in range(3)]


@dataclass(frozen=True)
class Model:
    directory: Path
    tokenizer: Tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    directory = tmp_path_factory.mktemp("model")
    return Model(directory, make_tokenizer(directory))


def calls_of(model: Model, tools: list[Tool], *, refuses: str = "") -> AutoCalls:
    """``refuses``: grammars with that text take too long, or all cannot be followed."""
    vocabulary = load_vocabulary(VocabularyFiles(str(model.directory), 1024, [0], 1))

    async def check(grammar: Grammar) -> None:
        if refuses == "all":
            raise GrammarError("no bytes")
        if refuses and refuses in grammar.text:
            raise SlowGrammarError("too slow")
        compile_grammar(grammar, vocabulary)

    dialect = Dialect.of(model.tokenizer, None)
    return asyncio.run(auto_calls(MARKUP, tools, dialect, check))


def grammar_of(model: Model, *tools: Tool) -> Grammar:
    return marked_grammar(MARKUP, tools, Dialect.of(model.tokenizer, None).markers)


def test_calls_are_held_to_their_schemas_behind_the_marker(model: Model) -> None:
    calls = calls_of(model, [LOOKING, tool("wait")])

    assert calls.grammar is not None
    assert calls.grammar.grammar == grammar_of(model, LOOKING, tool("wait"))
    assert calls.grammar.after == model.tokenizer.added_ids(["<tool_call>"])["<tool_call>"]
    assert calls.unenforced == ()


def test_a_schema_that_cannot_be_followed_leaves_its_tool_any_object(model: Model) -> None:
    calls = calls_of(model, [LOOKING, UNKNOWN])

    assert calls.grammar is not None
    assert calls.grammar.grammar == grammar_of(model, LOOKING, tool("unknown"))
    assert calls.unenforced == ("tools.1",)


def test_schemas_that_are_too_large_together_leave_all_tools_any_object(model: Model) -> None:
    calls = calls_of(model, LARGE)

    assert calls.grammar is not None
    assert calls.grammar.grammar == grammar_of(model, *(tool(one.function.name) for one in LARGE))
    assert calls.unenforced == ("tools.0", "tools.1", "tools.2")


def test_what_takes_too_long_is_not_tried_tool_by_tool(model: Model) -> None:
    calls = calls_of(model, [LOOKING, tool("wait", {"title": SLOW})], refuses=SLOW)

    assert calls.unenforced == ("tools.0", "tools.1")


def test_a_model_that_follows_no_grammar_answers_as_it_is(model: Model) -> None:
    tools = [LOOKING, tool("wait", {"type": "object"}, strict=True)]

    assert calls_of(model, tools, refuses="all") == AutoCalls(None, ("tools.0", "tools.1"))


def test_a_marker_that_is_no_token_holds_nothing(tmp_path: Path) -> None:
    model = Model(tmp_path, make_tokenizer(tmp_path, markers=()))

    assert calls_of(model, [LOOKING]) == AutoCalls(None, ("tools.0",))


def test_a_strict_schema_that_cannot_be_followed_is_refused(model: Model) -> None:
    with pytest.raises(ApiError, match="Unimplemented keys") as refused:
        calls_of(model, [LOOKING, tool("unknown", {"not": {}}, strict=True)])

    assert (refused.value.status, refused.value.body.error.param) == (400, "tools.1")
