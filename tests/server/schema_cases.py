"""JSON schemas of many kinds, whose texts are short whatever a model writes."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
WORD = {"type": "string", "maxLength": 6}
DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}
FLAG = {"type": "boolean"}


def record(**properties: Any) -> Schema:
    """All of them, and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def some(*required: str, **properties: Any) -> Schema:
    return record(**properties) | {"required": list(required)}


def items(schema: Any, least: int, most: int) -> Schema:
    return {"type": "array", "items": schema, "minItems": least, "maxItems": most}


TREE = {
    "$defs": {"tree": some("value", value=DIGIT, left={"$ref": "#/$defs/leaf"}), "leaf": record(value=DIGIT)},
    "$ref": "#/$defs/tree",
}
LINKED = {
    "$defs": {
        "node": {
            "anyOf": [
                {"type": "null"},
                record(v=FLAG, next={"anyOf": [{"type": "null"}, {"$ref": "#/$defs/end"}]}),
            ]
        },
        "end": record(v=FLAG),
    },
    "$ref": "#/$defs/node",
}

SCHEMAS: dict[str, Schema] = {
    "boolean": FLAG,
    "null": {"type": "null"},
    "integer bounds": {"type": "integer", "minimum": -20, "maximum": 20},
    "integer exclusive": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 3},
    "integer multiple": {"type": "integer", "minimum": 0, "maximum": 100, "multipleOf": 5},
    "number bounds": {"type": "number", "minimum": 0, "maximum": 1, "pattern": ""},
    "number narrow": {"type": "number", "minimum": 1.5, "maximum": 2.5},
    "string": WORD,
    "string length": {"type": "string", "minLength": 3, "maxLength": 5},
    "string empty": {"type": "string", "maxLength": 0},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    "pattern inside": {"type": "string", "pattern": "^a.{0,3}z$"},
    "pattern choice": {"type": "string", "pattern": "^(red|green|blue)$"},
    "pattern unicode": {"type": "string", "pattern": "^[äöü]{2,4}$"},
    "pattern escapes": {"type": "string", "pattern": '^["\\\\/]{1,3}$'},
    "format date": {"type": "string", "format": "date"},
    "format ipv6": {"type": "string", "format": "ipv6"},
    "format uuid": {"type": "string", "format": "uuid"},
    "format ipv4": {"type": "string", "format": "ipv4"},
    "enum strings": {"enum": ["north", "south", "east", "west"]},
    "enum prefixes": {"enum": ["a", "ab", "abc", "abcd"]},
    "enum mixed": {"enum": [1, "one", None, True, [1], {"a": 1}]},
    "enum unicode": {"enum": ["é", "日本", "🙂", "a\nb", 'say "hi"']},
    "const": {"const": {"kind": "point", "at": [1, 2, 3]}},
    "const unicode": {"const": "naïve 🙂"},
    "array empty": items(DIGIT, 0, 0),
    "array bounds": items(DIGIT, 2, 4),
    "array exact": items(FLAG, 3, 3),
    "array of strings": items({"type": "string", "maxLength": 2}, 0, 3),
    "array nested": items(items(DIGIT, 1, 2), 1, 2),
    "array of records": items(record(x=DIGIT), 1, 2),
    "array of enums": items({"enum": ["a", "b"]}, 1, 5),
    "tuple": {"type": "array", "prefixItems": [DIGIT, FLAG], "items": False, "minItems": 2},
    "tuple and rest": {"type": "array", "prefixItems": [FLAG], "items": DIGIT, "minItems": 1, "maxItems": 3},
    "object empty": record(),
    "object one": record(name=WORD),
    "object three": record(name=WORD, n=DIGIT, ok=FLAG),
    "object optional": some("a", a=DIGIT, b=DIGIT, c=DIGIT),
    "object all optional": some(a=DIGIT, b=FLAG),
    "object nested": record(a=record(b=record(c=DIGIT))),
    "object wide": record(**{f"field_{number}": FLAG for number in range(8)}),
    "object unicode keys": record(größe=DIGIT, 名前=FLAG),
    "object odd keys": record(**{"a b": FLAG, 'q"': FLAG, "": FLAG}),
    "object patterns": record() | {"patternProperties": {"^x[0-9]$": FLAG}, "maxProperties": 2},
    "object of numbers": record(lat={"type": "number", "minimum": -1, "maximum": 1}),
    "nullable": record(a={"type": ["integer", "null"], "minimum": 0, "maximum": 9}),
    "types": {"type": ["boolean", "null"]},
    "anyOf scalars": {"anyOf": [FLAG, DIGIT]},
    "anyOf records": {"anyOf": [record(a=DIGIT), record(b=FLAG)]},
    "anyOf same start": {"anyOf": [record(a=DIGIT, b=FLAG), record(a=DIGIT, c=FLAG)]},
    "anyOf null": record(a={"anyOf": [WORD, {"type": "null"}]}),
    "anyOf in array": items({"anyOf": [{"const": "x"}, DIGIT]}, 1, 3),
    "oneOf const": {"oneOf": [record(kind={"const": "a"}, n=DIGIT), record(kind={"const": "b"}, ok=FLAG)]},
    "allOf": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 7}]},
    "allOf records": {"allOf": [some("a", a=DIGIT) | {"additionalProperties": True}, some("a", a=DIGIT)]},
    "ref": {"$defs": {"d": DIGIT}, **record(a={"$ref": "#/$defs/d"}, b={"$ref": "#/$defs/d"})},
    "ref definitions": {"definitions": {"d": FLAG}, **record(a={"$ref": "#/definitions/d"})},
    "ref chain": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": FLAG}, "$ref": "#/$defs/a"},
    "ref tree": TREE,
    "ref list": LINKED,
    "ref in array": {"$defs": {"p": record(x=DIGIT, y=DIGIT)}, **items({"$ref": "#/$defs/p"}, 1, 2)},
    "titles": {"title": "T", "$schema": "https://json-schema.org/draft/2020-12/schema"} | record(a=DIGIT),
    "default": record(a=DIGIT | {"default": 3}, b=FLAG | {"examples": [True]}),
    "person": record(name=WORD, age=DIGIT | {"maximum": 120}, tags=items(WORD, 0, 2)),
    "tool call": record(name={"enum": ["search", "add"]}, arguments=record(a=DIGIT, b=DIGIT)),
}  # fmt: skip
