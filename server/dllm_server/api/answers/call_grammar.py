"""The grammar of an answer that calls tools in the format that its parser reads, or follows a schema."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from dllm_server.api.schemas.tools import Tool
from dllm_server.api.text.speech import Markup, Thinking
from dllm_server.api.text.thoughts import CLOSING
from dllm_server.api.text.tool_calls import MarkedCalls
from dllm_server.settings import ToolCallParser
from dllm_server.structure.closed import close
from dllm_server.structure.grammar import Grammar, GrammarKind

# As templates write JSON, and so what models have learned.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_COMPACT = {"whitespace_flexible": False}


def answer_grammar(
    markup: Markup, tools: Sequence[Tool], schema: str | None, added: Collection[str]
) -> Grammar:
    """Calls of ``tools``, one or as many as the answer may hold, or else JSON that follows ``schema``, the
    text of an object, behind the thoughts that the prompt has opened. ``added`` are those markers that are
    tokens of their own."""
    answers, rules = [], []
    if tools:
        answers.append("calls")
        rules += _calls(markup, tools, added)
    if schema is not None:
        answers.append("text")
        rules.append(f"text: {_json(json.loads(schema), _COMPACT)}")
    start = " | ".join(answers)
    if markup.thinking is Thinking.OPEN:
        start = f"thoughts ({start})"
        if CLOSING in added:
            rules.append(f'thoughts: /(?s:.*)/ {CLOSING} "\\n\\n"')
        else:
            rules += ['thoughts: thought "\\n\\n"', f"thought[suffix={json.dumps(CLOSING)}]: /(?s:.*)/"]
    return Grammar(GrammarKind.LARK, "\n".join([f"start: {start}", *rules]))


def marked_grammar(markup: Markup, tools: Sequence[Tool], added: Collection[str]) -> Grammar:
    """What follows the marker that opens a call of ``tools``, up to the call's end; where calls follow each
    other without markers, as many as the answer may hold."""
    marked = replace(markup, is_one_call=markup.is_one_call or markup.calls is ToolCallParser.HERMES)
    rules = _calls(marked, tools, added, is_open=True)
    return Grammar(GrammarKind.LARK, "\n".join(["start: calls", *rules]))


def schema_grammar(tool: Tool) -> Grammar:
    """The arguments of ``tool``."""
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(_schema(tool)))


def _schema(tool: Tool) -> dict[str, Any]:
    return tool.function.parameters or {"type": "object"}


def _calls(
    markup: Markup, tools: Sequence[Tool], added: Collection[str], *, is_open: bool = False
) -> list[str]:
    """``is_open``: the first call's marker is there."""

    def marker(name: str) -> str:
        return name if name in added else json.dumps(name)

    match markup.calls:
        case ToolCallParser.HERMES:
            opening, closing = map(marker, MarkedCalls.markers)
            opening = "" if is_open else opening
            key, before, between, after = "arguments", f'{opening} "\\n"', '"\\n"', f'"\\n" {closing}'
        case ToolCallParser.LLAMA3_JSON:
            key, before, between, after = "parameters", "", '"; "', ""
        case None:
            raise ValueError("nothing reads calls")
    more = "" if markup.is_one_call else f" ({between} call)*"
    names = " | ".join(f"call_{place}" for place in range(len(tools)))
    rules = [f"calls: call{more}", f"call: {before} ({names}) {after}"]
    for place, tool in enumerate(tools):
        head = f'{{"name": {json.dumps(tool.function.name)}, "{key}": '
        rules.append(f'call_{place}: {json.dumps(head)} arguments_{place} "}}"')
        rules.append(f"arguments_{place}: {_json(_schema(tool), _LAYOUT)}")
    return rules


def _json(schema: dict[str, Any], layout: dict[str, Any]) -> str:
    own = json.loads(json.dumps(schema))
    close(own)
    return f"%json {json.dumps(own | {'x-guidance': layout})}"
