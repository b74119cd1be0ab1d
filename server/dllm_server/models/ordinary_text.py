"""Text in which the names of special tokens are words like any other."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer as Backend

_WORD = re.compile(r"[\w-]*")  # what templates look for in a schema
_NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # never part of a text


def without_specials(backend: Backend, token_ids: Collection[int]) -> Backend:
    """The same tokenizer, for which no text becomes one of ``token_ids``: nobody knows their names."""
    values = json.loads(backend.to_str())
    model: dict[str, Any] = values["model"]
    secret = secrets.token_hex(16)
    hidden = {name: f"{secret}-{id_}" for id_ in token_ids if (name := backend.id_to_token(id_)) is not None}
    for token in values["added_tokens"]:
        if token["id"] in token_ids:
            token |= {"content": f"{secret}-{token['id']}", "special": True}
    made = {_product(merge) for merge in model.get("merges") or ()}  # these the merges must still find
    hidden = {name: new for name, new in hidden.items() if name not in made}
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {hidden.get(name, name): id_ for name, id_ in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[hidden.get(name, name), score] for name, score in vocabulary]
    if model.get("unk_token") in hidden:
        model["unk_token"] = hidden[model["unk_token"]]
    values["post_processor"] = None
    plain = Backend.from_str(json.dumps(values))
    plain.encode_special_tokens = True
    return plain


def _product(merge: str | list[str]) -> str:
    return merge.replace(" ", "") if isinstance(merge, str) else "".join(merge)


def texts_in(value: Any) -> list[str]:
    """All texts in ``value`` of JSON, keys too, in no order."""
    texts, pending = [], [value]
    while pending:
        match pending.pop():
            case str() as text:
                texts.append(text)
            case Mapping() as members:
                texts += members
                pending += members.values()
            case Sequence() as items:
                pending += items
    return texts


class Marks:
    """Flags the characters of a user's text that a special token's name might begin with, or that it might
    share with text around it, through whatever a chat template does to the text."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted({name for name in names if name})
        self._heads = {name[:end] for name in self._names for end in range(1, len(name))}
        self._tails = {name[start:] for name in self._names for start in range(1, len(name))}
        self._longest = max(map(len, self._names), default=1) - 1

    @staticmethod
    def sign_for(value: Any) -> str | None:
        """A character that no text in ``value`` of JSON holds; None where they hold all that could be."""
        held = "".join(texts_in(value))
        return next((sign for sign in _NONCHARACTERS if sign not in held), None)

    def insert(self, text: str, sign: str) -> str:
        """``text`` with ``sign`` before each flagged character."""
        places = set(self._places(text))
        if not places:
            return text
        ends = [*sorted(places), len(text)]
        pieces = [text[start:end] for start, end in pairwise(ends)]
        return text[: ends[0]] + "".join(sign + piece for piece in pieces)

    def insert_within(self, value: Any, sign: str) -> Any:
        """``value`` of JSON with ``sign`` in all of its texts, keys too, but for words, which templates
        look for and which are parts of a special token's name at most."""
        match value:
            case str():
                is_word = _WORD.fullmatch(value) and value not in self._names
                return value if is_word else self.insert(value, sign)
            case list():
                return [self.insert_within(item, sign) for item in value]
            case dict():
                return {
                    self.insert_within(name, sign): self.insert_within(item, sign)
                    for name, item in value.items()
                }
            case _:
                return value

    @staticmethod
    def remove(text: str, sign: str) -> tuple[str, list[int]]:
        """The text without signs, and the places of the characters that they flagged."""
        pieces = text.split(sign)
        places, length = [], 0
        for piece in pieces[:-1]:
            length += len(piece)
            places.append(length)
        return "".join(pieces), places

    def _places(self, text: str) -> Iterable[int]:
        for name in self._names:
            start = text.find(name)
            while start >= 0:
                yield start
                start = text.find(name, start + 1)
        for length in range(1, min(self._longest, len(text)) + 1):
            if text[-length:] in self._heads:
                yield len(text) - length
            if text[:length] in self._tails:
                yield 0
        if 0 < len(text) < self._longest and any(text in name for name in self._names):
            yield 0
