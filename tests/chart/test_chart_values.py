"""values.yaml and its schema say the same, and every value is explained."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "dllm-operator"
VALUES = CHART / "values.yaml"
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
OF_HELM = {"global"}  # a parent chart passes it


def keys(node: yaml.MappingNode, schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    """Path and line of each value that the schema knows by name."""
    for key, value in node.value:
        name = f"{path}.{key.value}".lstrip(".")
        yield name, key.start_mark.line
        inner = schema.get("properties", {}).get(key.value, {})
        if isinstance(value, yaml.MappingNode) and "properties" in inner:
            yield from keys(value, inner, name)


def in_schema(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, inner in schema["properties"].items():
        full = f"{path}.{name}".lstrip(".")
        if full not in OF_HELM:
            yield full
        if "properties" in inner:
            yield from in_schema(inner, full)


def in_values() -> list[tuple[str, int]]:
    node = yaml.compose(VALUES.read_text())
    assert isinstance(node, yaml.MappingNode)
    return list(keys(node, SCHEMA))


def test_values_and_schema_name_the_same_things() -> None:
    assert sorted(name for name, _ in in_values()) == sorted(in_schema(SCHEMA))


def test_every_value_is_explained_above_it() -> None:
    lines = VALUES.read_text().splitlines()

    silent = [name for name, line in in_values() if not re.match(r"\s*# -- \S.*\.$", lines[line - 1])]

    assert silent == []


def test_objects_of_the_schema_take_no_unknown_values() -> None:
    def loose(schema: dict[str, Any], path: str) -> list[str]:
        inner = schema.get("properties", {})
        found = [path] if inner and schema.get("additionalProperties") is not False else []
        return found + [name for key, one in inner.items() for name in loose(one, f"{path}.{key}")]

    assert loose(SCHEMA, "") == []


def test_the_chart_has_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert (chart["version"], chart["appVersion"]) == (project["version"], project["version"])
