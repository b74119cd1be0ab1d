"""A conversation's prompt, with how its answer is read and what it is held to."""

from __future__ import annotations

import json

from dllm_server.api.answers.auto_calls import Check, auto_calls
from dllm_server.api.answers.call_grammar import answer_grammar
from dllm_server.api.answers.markup import Dialect, markup_of
from dllm_server.api.answers.plan import Prompt
from dllm_server.api.schemas.requests import ChatCompletionRequest
from dllm_server.api.schemas.structured import AskedGrammar
from dllm_server.api.text.speech import Markup, Thinking
from dllm_server.settings import ToolCallParser
from dllm_server.structure.grammar import GrammarKind


async def chat_prompt(
    asked: ChatCompletionRequest, token_ids: list[int], dialect: Dialect, check: Check
) -> Prompt:
    """``ApiError`` 400 where nothing reads the calls that are asked for, or nothing can hold them to a strict
    schema."""
    markup = markup_of(asked, token_ids, dialect)
    grammar = _grammar(asked, markup, dialect)
    if grammar is not None or markup.calls is None:
        return Prompt(token_ids, markup=markup, grammar=grammar)
    auto = await auto_calls(markup, asked.shown_tools, dialect, check)
    return Prompt(token_ids, markup=markup, grammar=auto.grammar, unenforced=auto.unenforced)


def _grammar(asked: ChatCompletionRequest, markup: Markup, dialect: Dialect) -> AskedGrammar | None:
    """What the answer is held to: the calls that it must make, or the structure of its text, which leaves
    room for marked calls, and for thoughts that have begun, where it is JSON."""
    if asked.forced_tools:
        return AskedGrammar("tools", answer_grammar(markup, asked.forced_tools, None, dialect.markers))
    structure = asked.asked_grammar
    has_calls = markup.calls is ToolCallParser.HERMES  # the others begin as texts do
    has_more = has_calls or markup.thinking is Thinking.OPEN
    if structure is None or structure.grammar.kind is not GrammarKind.JSON_SCHEMA or not has_more:
        return structure
    try:
        is_schema = isinstance(json.loads(structure.grammar.text), dict)
    except (ValueError, RecursionError):
        is_schema = False
    if not is_schema:
        return structure  # the compiler says what is wrong with it
    tools = asked.shown_tools if has_calls else []
    grammar = answer_grammar(markup, tools, structure.grammar.text, dialect.markers)
    return AskedGrammar(structure.param, grammar)
