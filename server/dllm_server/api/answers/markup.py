"""What answers may hold besides content: the dialect of a model's template, and a request's part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from dllm_server.api.schemas.errors import unsupported
from dllm_server.api.schemas.requests import ChatCompletionRequest
from dllm_server.api.schemas.tools import NamedTool
from dllm_server.api.text.speech import PLAIN, Markup, Thinking
from dllm_server.api.text.thoughts import CLOSING, OPENING, ThoughtsParser
from dllm_server.api.text.tool_calls import CALL_PARSERS, parser_of
from dllm_server.models.tokenizer import Tokenizer
from dllm_server.settings import ToolCallParser
from dllm_server.structure.grammar import GrammarKind

_LAST_TOKENS = 16  # of a prompt: enough for the opening of a thinking section


@dataclass(frozen=True, slots=True)
class Dialect:
    """How answers in a chat template are written."""

    tokenizer: Tokenizer
    thinks: bool  # the template has a thinking section
    calls: ToolCallParser | None
    markers: Mapping[str, int]  # ids of those that are tokens of their own

    @classmethod
    def of(cls, tokenizer: Tokenizer, calls: ToolCallParser | None) -> Self:
        """By the template's text; ``calls`` is what the settings say."""
        text = tokenizer.template.text
        markers = {*ThoughtsParser.markers, *(name for one in CALL_PARSERS.values() for name in one.markers)}
        return cls(
            tokenizer,
            thinks=OPENING in text and CLOSING in text,
            calls=calls or parser_of(text),
            markers=tokenizer.added_ids(markers),
        )


def markup_of(asked: ChatCompletionRequest, prompt: Sequence[int], dialect: Dialect) -> Markup:
    """How an answer to ``prompt`` is read; ``ApiError`` 400 where nothing reads its calls."""
    calls = None
    if asked.shown_tools:
        calls = dialect.calls
        if calls is None:
            raise unsupported(
                "tools: how this model's chat template writes calls is not known: name it with the server's "
                "--tool-call-parser, or leave tools out",
                param="tools",
            )
    thinking = Thinking.NO
    structure = asked.asked_grammar
    has_room = structure is None or structure.grammar.kind is GrammarKind.JSON_SCHEMA
    if dialect.thinks and asked.separate_reasoning and has_room:
        end = dialect.tokenizer.decode(prompt[-_LAST_TOKENS:], skip_special_tokens=False)
        thinking = Thinking.OPEN if end.rstrip().endswith(OPENING) else Thinking.MAY
    if calls is None and thinking is Thinking.NO:
        return PLAIN
    read = {*(CALL_PARSERS[calls].markers if calls is not None else ())}
    read |= {*(ThoughtsParser.markers if thinking is not Thinking.NO else ())}
    return Markup(
        thinking=thinking,
        tells_thoughts=asked.include_reasoning,
        calls=calls,
        tools=frozenset(tool.function.name for tool in asked.shown_tools),
        is_one_call=not asked.parallel_tool_calls or isinstance(asked.tool_choice, NamedTool),
        kept_tokens=frozenset(token_id for name, token_id in dialect.markers.items() if name in read),
    )
