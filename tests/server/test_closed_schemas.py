"""Objects hold nothing but what their schema names, where that can be told, and never what it forbids."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
from dllm_server.structure.closed import close
from hypothesis import given
from hypothesis import strategies as st

A, B = {"type": "integer"}, {"type": "string"}
OPEN = {"properties": {"a": A}}
CLOSED = OPEN | {"additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (OPEN, CLOSED),
        (CLOSED, CLOSED),
        (OPEN | {"additionalProperties": B}, OPEN | {"additionalProperties": B}),
        ({"type": "object"}, {"type": "object"}),
        ({"properties": {"allOf": OPEN}}, {"properties": {"allOf": CLOSED}, "additionalProperties": False}),
        ({"items": OPEN}, {"items": CLOSED}),
        ({"items": [OPEN], "prefixItems": [OPEN]}, {"items": [CLOSED], "prefixItems": [CLOSED]}),
        ({"additionalProperties": OPEN}, {"additionalProperties": CLOSED}),
        ({"anyOf": [OPEN, A]}, {"anyOf": [CLOSED, A]}),
        ({"$defs": {"x": OPEN}, "$ref": "#/$defs/x"}, {"$defs": {"x": CLOSED}, "$ref": "#/$defs/x"}),
        (OPEN | {"required": ["a"]}, CLOSED | {"required": ["a"]}),
        ({"default": OPEN, "enum": [OPEN]}, {"default": OPEN, "enum": [OPEN]}),
        (True, True),
    ],
)
def test_an_object_that_names_fields_has_no_others(schema: Any, expected: Any) -> None:
    schema = copy.deepcopy(schema)

    close(schema)

    assert schema == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [OPEN, {"properties": {"b": B}}]},
        {"oneOf": [OPEN, {"properties": {"a": A, "b": B}}]},
        OPEN | {"anyOf": [{"properties": {"b": B}, "required": ["b"]}]},
        OPEN | {"$defs": {"b": {"properties": {"b": B}}}, "$ref": "#/$defs/b"},
        OPEN | {"patternProperties": {"^x": A}},
        OPEN | {"minProperties": 2},
        OPEN | {"required": ["b"]},
        OPEN | {"required": [["a"]]},
        {"not": OPEN},
        {"items": {"if": OPEN, "then": OPEN}},
    ],
)
def test_an_object_that_is_put_together_stays_open(schema: Any) -> None:
    given_schema = copy.deepcopy(schema)

    close(schema)

    assert schema == given_schema


names = st.sampled_from("abc")
schemas = st.recursive(
    st.sampled_from([A, B, {"type": "boolean"}]),
    lambda inner: st.one_of(
        st.builds(lambda fields: {"type": "object", "properties": fields}, st.dictionaries(names, inner)),
        st.builds(
            lambda fields: {"type": "object", "properties": fields, "required": [*fields]},
            st.dictionaries(names, inner),
        ),
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda one, other: {"anyOf": [one, other]}, inner, inner),
        st.builds(lambda one, other: {"oneOf": [one, other]}, inner, inner),
    ),
    max_leaves=6,
)
values = st.recursive(
    st.sampled_from([0, "x", True]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@given(schemas, values)
def test_what_follows_the_closed_schema_follows_the_given_one(schema: Any, value: Any) -> None:
    closed = copy.deepcopy(schema)
    close(closed)

    if jsonschema.Draft202012Validator(closed).is_valid(value):
        jsonschema.validate(value, schema)
