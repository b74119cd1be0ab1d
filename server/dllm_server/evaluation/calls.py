"""Calls of one of two tools, in the format of Hermes. No dependency but the standard library."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dllm_server.evaluation.spelling import invented
from dllm_server.evaluation.tools import TOOLS, Slot, Tool
from dllm_server.evaluation.wording import Wording, worded
from dllm_server.evaluation.wordings import wordings_of

OPENING, CLOSING = "<tool_call>\n", "\n</tool_call>"


@dataclass(frozen=True, slots=True)
class CallQuestion:
    """``answer`` is the call as the model writes it; ``tools`` as OpenAI's API takes them."""

    question: str
    answer: str
    tools: tuple[dict[str, Any], ...]


def make_call(rng: random.Random, wording: Wording, most_tools: int = 2) -> CallQuestion:
    """Two tools, or up to ``most_tools``, of which one answers the question."""
    tool = rng.choice(TOOLS) if rng.random() < 0.75 else invented_tool(rng)
    values = {slot.name: _value(rng, slot) for slot in tool.slots}
    told = {name: _told(value) for name, value in values.items()}
    wordings, variant, slots = wordings_of("tool_calls"), tool.name, told
    if variant not in wordings.trained or rng.random() < 0.15:
        variant, slots = "by_name", {"name": tool.name, "arguments": _arguments(rng, told)}
    question = worded(rng, wordings, variant, slots, wording)
    return CallQuestion(question, call(tool.name, values), beside(rng, tool, most_tools))


def call(name: str, arguments: Mapping[str, Any]) -> str:
    """As chat templates write it, and as the server's grammar of calls does."""
    return f"{OPENING}{json.dumps({'name': name, 'arguments': dict(arguments)}, ensure_ascii=False)}{CLOSING}"


def beside(rng: random.Random, tool: Tool, most_tools: int = 2) -> tuple[dict[str, Any], ...]:
    """``tool`` among others, as OpenAI's API takes them."""
    count = 2 if most_tools == 2 else rng.randint(1, most_tools)
    shown = {tool.name: tool}
    while len(shown) < count:
        other = rng.choice(TOOLS) if rng.random() < 0.75 else invented_tool(rng)
        shown.setdefault(other.name, other)
    tools = list(shown.values())
    rng.shuffle(tools)
    is_from_pydantic = rng.random() < 0.25
    return tuple(_described(one, is_from_pydantic=is_from_pydantic) for one in tools)


def invented_tool(rng: random.Random) -> Tool:
    """A tool that no list holds, of one to three arguments."""
    names: dict[str, None] = {}
    while len(names) < rng.randint(2, 4):
        names[invented(rng)] = None
    name, *slots = names
    if rng.random() < 0.5:
        name = f"{rng.choice(('get', 'set', 'find', 'make', 'send', 'run', 'look_up'))}_{name}"
    kinds = ("string", "string", "integer", "boolean")
    words = " ".join(invented(rng) for _ in range(rng.randint(2, 4))).capitalize() + "."
    return Tool(name, words, tuple(Slot(slot, rng.choice(kinds)) for slot in slots))


def same_call(answer: str, expected: str) -> bool:
    """Whether both are one call of the same tool with the same arguments, whatever the white space."""
    read, wanted = _read(answer), _read(expected)
    return read is not None and read == wanted


def is_valid_call(answer: str, tools: Sequence[Mapping[str, Any]]) -> bool:
    """Whether ``answer`` is one call of one of ``tools`` whose arguments follow its parameters: all that are
    required, of the types and enums, and others where these are not forbidden."""
    read = _read(answer)
    if read is None:
        return False
    functions = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    parameters, arguments = functions.get(read.get("name")), read.get("arguments")
    if parameters is None or not isinstance(arguments, dict):
        return False
    kinds = {"string": str, "integer": int, "boolean": bool}
    properties = parameters["properties"]
    return (
        arguments.keys() >= set(parameters["required"])
        and (parameters.get("additionalProperties", True) or arguments.keys() <= properties.keys())
        and all(
            type(value) is kinds[properties[key]["type"]] and value in properties[key].get("enum", [value])
            for key, value in arguments.items()
            if key in properties
        )
    )


def _read(answer: str) -> dict[str, Any] | None:
    text = answer.strip()
    if not (text.startswith(OPENING.strip()) and text.endswith(CLOSING.strip())):
        return None
    try:
        read = json.loads(text[len(OPENING.strip()) : -len(CLOSING.strip())])
    except ValueError:
        return None
    return read if isinstance(read, dict) else None


def _described(tool: Tool, *, is_from_pydantic: bool) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for slot in tool.slots:
        properties[slot.name] = {"type": slot.kind} | ({"enum": list(slot.values)} if slot.is_closed else {})
    required = [slot.name for slot in tool.slots]
    parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    if is_from_pydantic:  # as agents' libraries derive it from a function's signature
        parameters = {"properties": properties, "required": required, "type": "object"}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _value(rng: random.Random, slot: Slot) -> Any:
    if slot.kind == "integer":
        return rng.randint(*slot.span)
    if slot.kind == "boolean":
        return rng.random() < 0.5
    if slot.is_closed or (slot.values and rng.random() < 0.6):
        return rng.choice(slot.values)
    word = invented(rng)
    return word.capitalize() if slot.values and slot.values[0][0].isupper() else word


def _told(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _arguments(rng: random.Random, told: Mapping[str, str]) -> str:
    equals = rng.choice((" ", "=", ": ", " = ", " set to "))
    pairs = [f"{name}{equals}{value}" for name, value in told.items()]
    if len(pairs) == 1:
        return pairs[0]
    return rng.choice((", ".join(pairs), f"{', '.join(pairs[:-1])} and {pairs[-1]}"))
