"""Schemas whose objects hold nothing but what they name, as other engines read them too: a model that may
write any further field may never come to an end. Whatever follows the closed schema follows the given one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_NAMED = ("properties", "$defs", "definitions")
_LISTED = ("items", "prefixItems", "anyOf")
_SINGLE = ("items", "additionalProperties")
# With these an object's fields may be named in several places, or are counted, or must not fit elsewhere.
_COMPOSED = frozenset(
    {
        "$dynamicRef",
        "allOf",
        "contains",
        "dependentRequired",
        "dependentSchemas",
        "dependencies",
        "else",
        "if",
        "minProperties",
        "not",
        "oneOf",
        "patternProperties",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_BRANCHES = frozenset({"$ref", "anyOf"})


def close(schema: Any) -> None:
    """Add ``additionalProperties: false`` to every object of ``schema`` that has ``properties`` and does not
    say. A schema that puts objects together from parts stays as it is."""
    parts = list(_parts(schema))
    objects = [part for part in parts if isinstance(part.get("properties"), dict)]
    if any(_COMPOSED & part.keys() for part in parts) or any(_BRANCHES & part.keys() for part in objects):
        return
    for part in objects:
        required, named = part.get("required", []), part["properties"]
        if isinstance(required, list) and all(isinstance(one, str) and one in named for one in required):
            part.setdefault("additionalProperties", False)


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """It and all schemas within it."""
    left = [schema]
    while left:
        part = left.pop()
        if not isinstance(part, dict):
            continue
        yield part
        left += [part[name] for name in _SINGLE if name in part]
        for name in _LISTED:
            left += part[name] if isinstance(part.get(name), list) else []
        for name in _NAMED:
            left += part[name].values() if isinstance(part.get(name), dict) else []
