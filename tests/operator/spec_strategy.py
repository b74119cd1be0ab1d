"""Specs from the CRD's own schema: whatever an API server admits, and some that its CEL rules refuse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import yaml
from dllm_operator.api.crd import crd
from hypothesis import strategies as st

from tests.cluster.cluster import ROOT

Schema = dict[str, Any]
Spec = dict[str, Any]

SPEC: Schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
EXAMPLES: list[Spec] = [
    document["spec"]
    for file in sorted((ROOT / "examples").glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
    if document and document["kind"] == "DLLMDeployment"
]
NASTY = (
    "",
    " ",
    "a" * 300,
    "\N{GRINNING FACE}",
    "\x00",
    "\x1b[31m",
    "\u2028",
    "null",
    "1e999999999",
    "-0",
    "${A}",
)
SIZES = (
    "1",
    "500m",
    "1Gi",
    "0",
    "1e3",
    "1e99",
    "10000000000E",
    "1e999999999",
    "64k",
    "1.5Gi",
    ".5",
    "256KiB",
)
SOURCES = ("embedded", "org/Name-8B", "pvc://claim/a/b", "pvc://claim/..", "no model")
MOST_ITEMS = 3

texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=12))


def from_schema(schema: Schema, path: str = "") -> st.SearchStrategy[Any]:
    """Values that keep the schema, its CEL rules aside."""
    if path == ".model.source":
        return st.sampled_from(SOURCES)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.one_of(st.sampled_from(SIZES), st.integers(0, 2**40))
    match schema["type"]:
        case "object":
            return _object(schema, path)
        case "array":
            return _array(schema, path)
        case "string":
            return _text(schema)
        case "boolean":
            return st.booleans()
        case "integer":
            return _number(schema, st.integers, 2**31 - 1)
        case "number":
            return _number(schema, st.floats, 1e6)
    raise AssertionError(f"{path}: no type {schema}")


def _object(schema: Schema, path: str) -> st.SearchStrategy[Any]:
    if "properties" not in schema:
        values = from_schema(schema["additionalProperties"], f"{path}{{}}")
        keys = st.one_of(st.sampled_from(("cpu", "memory", "nvidia.com/gpu", "a.b/c", "team")), texts)
        return st.dictionaries(
            keys, values, max_size=min(MOST_ITEMS, schema.get("maxProperties", MOST_ITEMS))
        )
    parts = {name: from_schema(part, f"{path}.{name}") for name, part in schema["properties"].items()}
    required = set(schema.get("required", ()))
    always = {name: part for name, part in parts.items() if name in required}
    maybe = {name: part for name, part in parts.items() if name not in required}

    @st.composite
    def chosen(draw: st.DrawFn) -> Spec:
        names = draw(st.lists(st.sampled_from(sorted(maybe)), max_size=4, unique=True)) if maybe else []
        return {name: draw(part) for name, part in always.items()} | {
            name: draw(maybe[name]) for name in names
        }

    return chosen()


def _array(schema: Schema, path: str) -> st.SearchStrategy[Any]:
    items = from_schema(schema["items"], f"{path}[]")
    least, most = schema.get("minItems", 0), min(schema.get("maxItems", MOST_ITEMS), MOST_ITEMS)
    keys = schema.get("x-kubernetes-list-map-keys")
    by: Callable[[Any], Any] | None = (lambda item: item.get(keys[0])) if keys else None
    return st.lists(items, min_size=least, max_size=most, unique_by=by)


def _text(schema: Schema) -> st.SearchStrategy[str]:
    least, most = schema.get("minLength", 0), min(schema.get("maxLength", 64), 64)
    if "pattern" in schema:
        found = st.from_regex(schema["pattern"].replace("$", r"\Z"))
        return found.filter(lambda text: least <= len(text) <= most)
    return texts.filter(lambda text: least <= len(text) <= most)


def _number(
    schema: Schema, make: Callable[..., st.SearchStrategy[Any]], most: float
) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum", -most), schema.get("maximum", most)
    if make is st.floats:
        return make(
            low,
            high,
            exclude_min=bool(schema.get("exclusiveMinimum")),
            exclude_max=bool(schema.get("exclusiveMaximum")),
        )
    low, high = low + bool(schema.get("exclusiveMinimum")), high - bool(schema.get("exclusiveMaximum"))
    return st.one_of(st.integers(low, min(high, low + 5)), st.integers(low, high))


@st.composite
def mutations(draw: st.DrawFn) -> Spec:
    """An example, with one to three of its parts (or of what it leaves unset) drawn anew."""
    spec = copy.deepcopy(draw(st.sampled_from(EXAMPLES)))
    for _ in range(draw(st.integers(1, 3))):
        _mutate(draw, spec, SPEC, "")
    return spec


def _mutate(draw: st.DrawFn, value: Spec, schema: Schema, path: str) -> None:
    name = draw(st.sampled_from(sorted(schema["properties"])))
    part, inner = schema["properties"][name], f"{path}.{name}"
    if "properties" in part and draw(st.booleans()):
        _mutate(draw, value.setdefault(name, {}), part, inner)
    else:
        value[name] = draw(from_schema(part, inner))


specs: st.SearchStrategy[Spec] = st.one_of(from_schema(SPEC), mutations())
