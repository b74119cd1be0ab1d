"""JSON schema as pydantic writes it -> structural schema as a CRD wants it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from dllm_operator.api.cel import VALIDATIONS

Schema = dict[str, Any]

_DEFINITION = "#/$defs/"
_NOT_STRUCTURAL = frozenset({"$defs", "title", "additionalProperties"})
_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_FIRST = ("description", "type")


def structural_schema(model: type[BaseModel]) -> Schema:
    """Schema of a class, references inlined; ``ValueError`` names a property without a description."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}), model.__name__)


def _convert(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> Schema:
    merged = _merge_alternatives(_inline(schema, definitions), definitions)
    converted: Schema = {}
    for key, value in merged.items():
        if key == "properties":
            converted[key] = {
                name: _property(part, definitions, f"{path}.{name}") for name, part in value.items()
            }
        elif key == "items":
            converted[key] = _without_description(_convert(value, definitions, f"{path}[]"))
        elif key == "additionalProperties" and isinstance(value, dict):
            converted[key] = _without_description(_convert(value, definitions, f"{path}{{}}"))
        elif key in _EXCLUSIVE:
            converted[_EXCLUSIVE[key]] = value
            converted[key] = True
        elif key == "default" and value is None:
            continue
        elif key not in _NOT_STRUCTURAL:
            converted[key] = value
    return dict(sorted(converted.items(), key=_order))


def _order(item: tuple[str, Any]) -> tuple[int, str]:
    key = item[0]
    return (_FIRST.index(key) if key in _FIRST else len(_FIRST), key)


def _property(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> Schema:
    converted = _convert(schema, definitions, path)
    if not converted.get("description"):
        raise ValueError(f"{path} has no description: kubectl explain would show nothing, write one")
    default = converted.get("default")
    if default is not None and default != {}:
        shown = str(default).lower() if isinstance(default, bool) else default
        converted["description"] += f" The default is {shown}."
    return converted


def _inline(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """The schema with its reference replaced; what stands beside the reference wins, rules add up."""
    if "$ref" not in schema:
        return dict(schema)
    target = _inline(definitions[schema["$ref"].removeprefix(_DEFINITION)], definitions)
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    rules = [*target.get(VALIDATIONS, []), *beside.get(VALIDATIONS, [])]
    return target | beside | ({VALIDATIONS: rules} if rules else {})


def _merge_alternatives(schema: Schema, definitions: Mapping[str, Any]) -> Schema:
    """``anyOf`` of one type and null -> that type: in a CRD, an optional field is simply not required."""
    alternatives = schema.get("anyOf")
    if alternatives is None or "x-kubernetes-int-or-string" in schema:
        return schema
    others = [part for part in alternatives if part.get("type") != "null"]
    if len(others) != 1:
        raise ValueError(f"anyOf {alternatives} is no structural schema: use one type, or null and one type")
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    only = _inline(others[0], definitions)
    rules = [*only.get(VALIDATIONS, []), *rest.get(VALIDATIONS, [])]
    return only | rest | ({VALIDATIONS: rules} if rules else {})


def _without_description(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "description"}
