"""What a client may ask an answer's text to be like."""

from __future__ import annotations

from enum import StrEnum

import msgspec

LONGEST_TEXT = 128 * 1024  # bytes of UTF-8


class GrammarKind(StrEnum):
    """What ``Grammar.text`` is."""

    JSON_SCHEMA = "json_schema"  # of the answer, which is JSON without white space between its tokens
    REGEX = "regex"  # that the whole answer matches, in the syntax of Rust's ``regex``
    LARK = "lark"  # in llguidance's dialect
    EBNF = "ebnf"  # in the dialect of llama.cpp (GBNF)
    CHOICE = "choice"  # a JSON list of the possible answers


class Grammar(msgspec.Struct, frozen=True):
    """The texts that an answer may be; at most ``LONGEST_TEXT`` bytes describe them."""

    kind: GrammarKind
    text: str


ANY_OBJECT = Grammar(GrammarKind.JSON_SCHEMA, '{"type": "object"}')
