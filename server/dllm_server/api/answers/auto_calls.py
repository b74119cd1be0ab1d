"""What holds the calls that an answer may make of itself, where it need not make any."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from dllm_server.api.answers.call_grammar import marked_grammar, schema_grammar
from dllm_server.api.answers.markup import Dialect
from dllm_server.api.schemas.errors import invalid_request
from dllm_server.api.schemas.structured import AskedGrammar
from dllm_server.api.schemas.tools import Tool
from dllm_server.api.text.speech import Markup
from dllm_server.api.text.tool_calls import CALL_PARSERS
from dllm_server.structure.checker import SlowGrammarError
from dllm_server.structure.compiler import GrammarError
from dllm_server.structure.grammar import Grammar

Check = Callable[[Grammar], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class AutoCalls:
    """The grammar of what follows a marker, None where nothing is held; ``unenforced`` are the tools whose
    arguments need only be JSON, or not even that."""

    grammar: AskedGrammar | None
    unenforced: tuple[str, ...]


async def auto_calls(markup: Markup, tools: Sequence[Tool], dialect: Dialect, check: Check) -> AutoCalls:
    """A schema that cannot be followed does not keep its tool from being called, as long as it is not
    ``strict``: that is an ``ApiError`` 400."""
    everything = tuple(f"tools.{place}" for place in range(len(tools)))
    assert markup.calls is not None  # noqa: S101
    after = dialect.markers.get(CALL_PARSERS[markup.calls].markers[0])
    if after is None:
        return AutoCalls(None, everything)

    def asked(some: Sequence[Tool]) -> AskedGrammar:
        return AskedGrammar("tools", marked_grammar(markup, some, dialect.markers), after)

    whole = asked(tools)
    if (problem := await _problem(whole.grammar, check)) is None:
        return AutoCalls(whole, ())
    if await _problem(asked([tool.loosened for tool in tools]).grammar, check) is not None:
        return AutoCalls(None, everything)  # this model follows no grammar
    attempts = [dict.fromkeys(range(len(tools)), problem)]
    if not isinstance(problem, SlowGrammarError):  # which would be as slow once more
        alone = [await _problem(schema_grammar(tool), check) for tool in tools]
        attempts.insert(0, {place: each for place, each in enumerate(alone) if each is not None})
    for loose in filter(None, attempts):
        for place, why in loose.items():
            if tools[place].function.strict:
                words = f"tools.{place}: its schema is strict and cannot be followed: {why}"
                raise invalid_request(words, param=f"tools.{place}", code="grammar")
        some = asked([tool.loosened if place in loose else tool for place, tool in enumerate(tools)])
        if await _problem(some.grammar, check) is None:
            return AutoCalls(some, tuple(everything[place] for place in loose))
    return AutoCalls(None, everything)


async def _problem(grammar: Grammar, check: Check) -> GrammarError | None:
    try:
        await check(grammar)
    except GrammarError as error:
        return error
    return None
