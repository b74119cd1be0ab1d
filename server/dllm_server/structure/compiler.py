"""From a grammar's text to a matcher that follows it."""

from __future__ import annotations

import json
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import any_to_lark

from dllm_server.structure.closed import close
from dllm_server.structure.grammar import LONGEST_TEXT, Grammar, GrammarKind

# Bounds of the automata, so that neither a mask nor their memory grows without end. What bounds the time of a
# compilation is ``checker``.
LIMITS = LLParserLimits(
    max_items_in_row=2_000,
    initial_lexer_fuel=500_000,
    step_lexer_fuel=100_000,
    step_max_items=50_000,
    max_lexer_states=50_000,
    max_grammar_size=200_000,
    verbose_errors=False,  # they would hold the whole state
)
_LONGEST_WORDS = 500


class GrammarError(ValueError):
    """A grammar that cannot be followed; the message is for whoever sent it."""


def compile_grammar(grammar: Grammar, vocabulary: LLTokenizer) -> LLMatcher:
    """A matcher before the first token. ``GrammarError`` in the library's words where it refuses the grammar;
    one that is huge or hostile may take any time."""
    size = len(grammar.text.encode())
    if size > LONGEST_TEXT:
        raise GrammarError(f"it has {size} bytes, and {LONGEST_TEXT} are the most that is compiled")
    matcher = LLMatcher(vocabulary, _source(grammar), log_level=0, limits=LIMITS)
    raise_error(matcher)
    matcher.compute_bitmask()  # makes the lexer, which has bounds of its own
    raise_error(matcher)
    return matcher


def raise_error(matcher: LLMatcher) -> None:
    """``GrammarError`` where the matcher has come to an end that is not the text's."""
    if matcher.is_error():
        words = " ".join(matcher.get_error().split())
        raise GrammarError(words[:_LONGEST_WORDS] or "no text matches it")


def _source(grammar: Grammar) -> str:
    try:
        match grammar.kind:
            case GrammarKind.JSON_SCHEMA:
                return json.dumps({"grammars": [{"json_schema": _compact(json.loads(grammar.text))}]})
            case GrammarKind.REGEX:
                return str(LLMatcher.grammar_from_regex(grammar.text))
            case GrammarKind.LARK:
                return str(LLMatcher.grammar_from_lark(grammar.text))
            case GrammarKind.EBNF:
                return str(LLMatcher.grammar_from_lark(any_to_lark(grammar.text)))
            case GrammarKind.CHOICE:
                return str(LLMatcher.grammar_from_lark(_choice(json.loads(grammar.text))))
    except RecursionError:
        raise GrammarError("it is nested too deeply") from None
    except Exception as error:  # the converter of EBNF raises plain Exception
        raise GrammarError(" ".join(str(error).split())[:_LONGEST_WORDS]) from error


def _compact(schema: Any) -> dict[str, Any]:
    """White space between tokens is free by default, and a weak model may write it for ever."""
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise GrammarError(f"a schema is an object, and this is {json.dumps(schema)[:40]}")
    close(schema)
    return schema | {"x-guidance": {"whitespace_flexible": False}}


def _choice(choices: Any) -> str:
    if not (isinstance(choices, list) and choices and all(isinstance(one, str) for one in choices)):
        raise GrammarError("the choices are a list of at least one text")
    return "start: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
