"""``python -m dllm_operator.api.reference``: docs/crd.md, from the schema that the API server is given."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from dllm_operator.api.crd import crd

HEADER = """# DLLMDeployment

Every field of `serving.dllm.dev/v1alpha1`; [the operator's page](operator.md#the-resource) says what the
blocks are for, and `kubectl explain dllmdeployment.spec --recursive` prints the same. Fields in **bold** must
be set where their block is. An `engine` field that is unset keeps the server's default
([configuration](configuration.md#engine)).
This page is generated: `python -m dllm_operator.api.reference > docs/crd.md`.
"""
ELSEWHERE = {
    "spec.gpuPools[].engine": "The fields of [`spec.engine`](#spec-engine).",
    "spec.networking.networkPolicy.from": "The fields of Kubernetes' NetworkPolicyPeer.",
    "spec.networking.networkPolicy.metricsFrom": "The fields of Kubernetes' NetworkPolicyPeer.",
    "spec.podTemplate.affinity": "The fields of Kubernetes' Affinity.",
    "spec.podTemplate.env[].valueFrom": "The fields of Kubernetes' EnvVarSource.",
}
"""Blocks whose fields are not repeated."""
INT32_MAX = 2**31 - 1
"""What a bound is where nothing but its type bounds a number."""


def reference() -> str:
    """The page's text."""
    version = crd()["spec"]["versions"][0]
    parts = version["schema"]["openAPIV3Schema"]["properties"]
    sections = [HEADER]
    for part in ("spec", "status"):
        plain, blocks = _divided(parts[part])
        sections += [f"## {part}\n", _table(f"{part}.", plain)] if plain["properties"] else [f"## {part}\n"]
        for name, block in blocks.items():
            inner = block["items"] if block["type"] == "array" else block
            mark = "[]" if block["type"] == "array" else ""
            about = f"{_text(block)}\n"
            sections += [f"### {part} {name}\n", about, _table(f"{part}.{name}{mark}.", inner)]
    return "\n".join(sections)


def _divided(schema: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema with its plain fields alone, and the fields that have fields."""
    fields = schema["properties"]
    blocks = {name: one for name, one in fields.items() if "properties" in one.get("items", one)}
    plain = {name: one for name, one in fields.items() if name not in blocks}
    return schema | {"properties": plain}, blocks


def _table(prefix: str, schema: dict[str, Any]) -> str:
    rows = ["| field | type | default | |", "|---|---|---|---|"]
    return "\n".join([*rows, *_rows(prefix, len(prefix), schema)]) + "\n"


def _rows(path: str, shown_from: int, schema: dict[str, Any]) -> Iterator[str]:
    for name, field in schema["properties"].items():
        full = path + name
        shown = f"`{full[shown_from:]}`"
        shown = f"**{shown}**" if name in schema.get("required", ()) else shown
        default = f"`{_literal(field['default'])}`" if "default" in field else ""
        note = ELSEWHERE.get(full)
        about = " ".join(filter(None, [_text(field), note]))
        yield f"| {shown} | {_type(field)} | {default} | {about} |"
        if note is None:
            inner = field.get("items", field)
            if "properties" in inner:
                yield from _rows(f"{full}{'[]' if 'items' in field else ''}.", shown_from, inner)


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        kind = ", ".join(f"`{_literal(value)}`" for value in field["enum"])
    elif field.get("x-kubernetes-int-or-string"):
        kind = "integer or string"
    elif field["type"] == "array":
        kind = f"list of {_type(field['items'])}"
    elif isinstance(field.get("additionalProperties"), dict):
        kind = f"map to {_type(field['additionalProperties'])}"
    else:
        kind = str(field["type"])
    low, high = field.get("minimum"), field.get("maximum")
    from_, to = (
        other if field.get(f"exclusive{end}") else word
        for end, word, other in (("Minimum", "from", "above"), ("Maximum", "to", "below"))
    )
    bounds = [f"{from_} {low:.10g}"] if low is not None else []
    bounds += [f"{to} {high:.10g}"] if high not in (None, INT32_MAX) else []
    return " ".join([kind, *bounds])


def _literal(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(field: dict[str, Any]) -> str:
    """What the field means, without the default that has a column of its own."""
    description = str(field["description"])
    if "default" in field:
        description = description.removesuffix(f" The default is {_literal(field['default'])}.")
    return description.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    sys.stdout.write(reference())
