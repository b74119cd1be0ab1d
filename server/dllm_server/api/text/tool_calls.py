"""Calls of tools in a text, in the formats that chat templates ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import ClassVar, Protocol

import msgspec

from dllm_server.api.text.parts import Called, Part, Said
from dllm_server.api.text.thoughts import beginning_at_end
from dllm_server.settings import ToolCallParser

_BETWEEN_CALLS = "; \t\r\n"


class CallParser(Protocol):
    """Parts calls from content, whatever the pieces of the text are. White space beside a call is neither;
    what looks like a call and is none is content, to the letter. A call is told once it is whole."""

    markers: ClassVar[tuple[str, ...]]  # that which opens a call first

    def __init__(self, tools: Collection[str]) -> None:
        """``tools`` are the names that may be called."""

    def push(self, piece: str) -> list[Part]: ...

    def flush(self) -> list[Part]:
        """What was held back, at the end of the text."""


class _Content:
    """Content beside calls: keeps back the white space that a call may follow."""

    def __init__(self) -> None:
        self._gap = ""
        self._is_after_call = False

    def say(self, text: str) -> list[Part]:
        whole = self._gap + text
        said = whole.rstrip()
        self._gap = whole[len(said) :]
        if self._is_after_call:
            said = said.lstrip()
        if not said:
            return []
        self._is_after_call = False
        return [Said(said)]

    def call(self, called: Called) -> list[Part]:
        self._gap, self._is_after_call = "", True
        return [called]

    def flush(self) -> list[Part]:
        gap, self._gap = self._gap, ""
        return [Said(gap)] if gap and not self._is_after_call else []


class MarkedCalls:
    """``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, anywhere and any number of them: Hermes,
    Qwen, LLaDA2."""

    markers: ClassVar[tuple[str, ...]] = ("<tool_call>", "</tool_call>")

    def __init__(self, tools: Collection[str]) -> None:
        self._content = _Content()
        self._held = ""
        self._is_inside = False
        self._looked_at = 0  # characters of what is held that hold no end

    def push(self, piece: str) -> list[Part]:
        opening, closing = self.markers
        self._held += piece
        parts: list[Part] = []
        while True:
            if not self._is_inside:
                said, marker, rest = self._held.partition(opening)
                if not marker:
                    kept = beginning_at_end(said, opening)
                    parts += self._content.say(said[: len(said) - kept])
                    self._held = said[len(said) - kept :]
                    return parts
                parts += self._content.say(said)
                self._held, self._is_inside, self._looked_at = rest, True, 0
            end = self._held.find(closing, max(self._looked_at - len(closing), 0))
            if end < 0:
                self._looked_at = len(self._held)
                return parts
            parts += self._close(self._held[:end])
            self._held, self._is_inside = self._held[end + len(closing) :], False

    def flush(self) -> list[Part]:
        text = self.markers[0] + self._held if self._is_inside else self._held
        self._held, self._is_inside = "", False
        return [*self._content.say(text), *self._content.flush()]

    def _close(self, inside: str) -> list[Part]:
        opening, closing = self.markers
        before, marker, last = inside.rpartition(opening)  # of several openings the last may begin a call
        called = read_call(last)
        if called is None:
            return self._content.say(opening + inside + closing)
        return [*(self._content.say(opening + before) if marker else []), *self._content.call(called)]


class BareCalls:
    """``{"name": ..., "parameters": {...}}`` where an answer begins, further ones behind semicolons, which
    are no content either, each perhaps behind ``<|python_tag|>``: Llama 3. Only a tool is called."""

    markers: ClassVar[tuple[str, ...]] = ("<|python_tag|>",)

    def __init__(self, tools: Collection[str]) -> None:
        self._tools = tools
        self._content = _Content()
        self._held = ""
        self._has_called = False
        self._is_content = False
        self._object: _ObjectEnd | None = None

    def push(self, piece: str) -> list[Part]:
        if self._is_content:
            return self._content.say(piece)
        self._held += piece
        parts: list[Part] = []
        while not self._is_content:
            if self._object is None:
                start = self._start()
                if self._is_content:
                    break
                if start is None:
                    return parts
                self._object = _ObjectEnd(start)
            end = self._object.find(self._held)
            if end is None:
                return parts
            called = read_call(self._held[self._object.start : end])
            if called is None or called.name not in self._tools:
                break
            parts += self._content.call(called)
            self._held, self._object, self._has_called = self._held[end:], None, True
        return [*parts, *self._give_up()]

    def flush(self) -> list[Part]:
        return [*self._give_up(), *self._content.flush()]

    def _start(self) -> int | None:
        """Where an object begins, None while it may still come; else this is content from here on."""
        (tag,) = self.markers
        text = self._held.lstrip(_BETWEEN_CALLS if self._has_called else None)
        if tag.startswith(text):
            return None
        text = text.removeprefix(tag).lstrip()
        if text and not text.startswith("{"):
            self._is_content = True
        return len(self._held) - len(text) if text.startswith("{") else None

    def _give_up(self) -> list[Part]:
        text, self._held, self._object, self._is_content = self._held, "", None, True
        return self._content.say(text.lstrip(_BETWEEN_CALLS) if self._has_called else text)


class _ObjectEnd:
    """Looks for the brace that closes the one at ``start``, each character once."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._looked_at = start
        self._depth = 0
        self._in_string = self._is_escaped = False

    def find(self, text: str) -> int | None:
        """The place behind it."""
        for place in range(self._looked_at, len(text)):
            character = text[place]
            if self._in_string:
                self._in_string = character != '"' or self._is_escaped
                self._is_escaped = character == "\\" and not self._is_escaped
            elif character == '"':
                self._in_string = True
            elif character in "{}":
                self._depth += 1 if character == "{" else -1
                if self._depth == 0:
                    return place + 1
        self._looked_at = len(text)
        return None


class _Written(msgspec.Struct):
    """A call as models write it."""

    name: str
    arguments: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()


def read_call(text: str) -> Called | None:
    """The call that ``text`` is, None if it is none. Arguments that are a string of JSON are read too."""
    try:
        written = msgspec.json.decode(text.encode(), type=_Written)
        arguments = bytes(written.arguments or written.parameters).decode() or "{}"
        if arguments == "null":
            arguments = "{}"
        if arguments.startswith('"'):
            arguments = msgspec.json.decode(arguments, type=str).strip()
        msgspec.json.decode(arguments, type=dict)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return Called(written.name, arguments) if written.name else None


CALL_PARSERS: Mapping[ToolCallParser, type[CallParser]] = MappingProxyType(
    {ToolCallParser.HERMES: MarkedCalls, ToolCallParser.LLAMA3_JSON: BareCalls}
)


def parser_of(template: str) -> ToolCallParser | None:
    """The format of calls that a chat template asks for, by its text; None where it is none of ours."""
    if "<tool_call>" in template and "<function=" not in template:
        return ToolCallParser.HERMES
    if '{"name":' in template and '"parameters":' in template:
        return ToolCallParser.LLAMA3_JSON
    return None
