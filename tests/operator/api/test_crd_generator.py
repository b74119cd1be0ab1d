from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dllm_operator.api.base import ApiModel
from dllm_operator.api.cel import Rule, validations
from dllm_operator.api.crd import TARGETS, crd, dump_crd, main
from dllm_operator.api.structural import structural_schema
from pydantic import ConfigDict, Field

ROOT = Path(__file__).resolve().parents[3]
KEYWORDS = {
    "additionalProperties",
    "anyOf",
    "default",
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-validations",
}
Schema = dict[str, Any]


def version() -> Schema:
    return crd()["spec"]["versions"][0]


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from walk(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from walk(schema[key], f"{path}[]")


def schemas() -> dict[str, Schema]:
    return dict(walk(version()["schema"]["openAPIV3Schema"]))


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_file_in_the_repository_is_what_the_types_generate(target: Path) -> None:
    assert (ROOT / target).read_text() == dump_crd(), "run: python -m dllm_operator.api.crd"


def test_the_generator_writes_both_copies(tmp_path: Path) -> None:
    main(tmp_path)

    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*.yaml")} == set(TARGETS)
    assert {path.read_text() for path in tmp_path.rglob("*.yaml")} == {dump_crd()}


def test_the_generator_gives_the_same_text_in_every_process() -> None:
    code = "from dllm_operator.api.crd import dump_crd; print(dump_crd(), end='')"

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout == dump_crd()


def test_the_yaml_is_the_manifest() -> None:
    assert yaml.safe_load(dump_crd()) == crd()


def test_every_schema_uses_only_what_a_structural_schema_may() -> None:
    unknown = {path: set(schema) - KEYWORDS for path, schema in schemas().items()}

    assert {path: keys for path, keys in unknown.items() if keys} == {}


def test_every_schema_has_one_type_or_is_an_integer_or_string() -> None:
    untyped = [
        path
        for path, schema in schemas().items()
        if not isinstance(schema.get("type"), str) and not schema.get("x-kubernetes-int-or-string")
    ]

    assert untyped == []


def test_every_field_is_described_in_sentences() -> None:
    for path, schema in schemas().items():
        if path and not path.endswith("[]") and path != ".metadata":
            assert schema["description"].endswith("."), path


def test_lists_and_maps_in_the_spec_are_bounded_so_that_rules_stay_cheap() -> None:
    for path, schema in schemas().items():
        if path.startswith(".spec"):
            assert schema.get("type") != "array" or "maxItems" in schema, path
            assert "additionalProperties" not in schema or "maxProperties" in schema, path


def test_strings_in_the_spec_are_bounded_so_that_rules_stay_cheap() -> None:
    strings = {path: schema for path, schema in schemas().items() if schema.get("type") == "string"}

    unbounded = [path for path, schema in strings.items() if not {"maxLength", "enum"} & set(schema)]

    assert [path for path in unbounded if path.startswith(".spec")] == []


def test_the_api_server_writes_only_the_defaults_that_are_part_of_the_contract() -> None:
    defaults = {path: schema["default"] for path, schema in schemas().items() if "default" in schema}

    assert defaults == {
        ".spec.auth.apiKeysSecret.key": "keys",
        ".spec.autoscaling.metric.name": "waiting",
        ".spec.autoscaling.minReplicas": 1,
        ".spec.autoscaling.provider": "KEDA",
        ".spec.device": "cuda",
        ".spec.gpuPools[].gpusPerReplica": 1,
        ".spec.model.tokenSecret.key": "token",
        ".spec.monitoring.podMonitor": False,
        ".spec.networking.inferencePool.endpointPicker.port": 9002,
        ".spec.networking.networkPolicy.enabled": True,
        ".spec.networking.port": 8000,
        ".spec.networking.requestTimeoutSeconds": 600,
        ".spec.podTemplate.readOnlyRootFilesystem": True,
        ".spec.podTemplate.startupTimeoutSeconds": 1800,
        ".spec.rollout.pause": False,
        ".spec.tuning": {},
        ".spec.tuning.intervalSeconds": 60,
        ".spec.tuning.mode": "Off",
        ".spec.tuning.targetMemoryUtilization": 0.9,
    }


def test_lists_of_named_things_are_maps_by_that_name() -> None:
    keys = {
        path: schema["x-kubernetes-list-map-keys"]
        for path, schema in schemas().items()
        if schema.get("x-kubernetes-list-type") == "map"
    }

    assert keys[".spec.gpuPools"] == keys[".spec.podTemplate.env"] == keys[".status.pools"] == ["name"]
    assert keys[".status.conditions"] == ["type"]


def test_the_columns_are_the_documented_ones() -> None:
    columns = version()["additionalPrinterColumns"]

    assert [column["name"] for column in columns if not column.get("priority")] == [
        "Model",
        "Ready",
        "Replicas",
        "GPUs",
        "Tuning",
        "Rollout",
        "Age",
    ]
    assert [column["name"] for column in columns if column.get("priority")] == [
        "Reason",
        "Tuned",
        "Converged",
        "URL",
    ]


def test_an_optional_field_is_its_type_and_a_reference_keeps_both_sides_rules() -> None:
    class Part(ApiModel):
        """A part."""

        model_config = ConfigDict(json_schema_extra=validations(Rule("self.a > 0", "inner")))

        a: int | None = Field(None, gt=0, description="A number.")

    class Whole(ApiModel):
        """A whole."""

        part: Part | None = Field(
            None, description="Its part.", json_schema_extra=validations(Rule("self.a < 9", "outer"))
        )

    part = structural_schema(Whole)["properties"]["part"]

    assert part["description"] == "Its part."
    assert [rule["message"] for rule in part["x-kubernetes-validations"]] == ["inner", "outer"]
    assert part["properties"]["a"] == {
        "description": "A number.",
        "type": "integer",
        "minimum": 0,
        "exclusiveMinimum": True,
    }


def test_a_field_without_words_cannot_be_generated() -> None:
    class Silent(ApiModel):
        """Says nothing."""

        field: int = 1

    with pytest.raises(ValueError, match=r"Silent\.field has no description"):
        structural_schema(Silent)


def test_a_field_of_two_types_cannot_be_generated() -> None:
    class Either(ApiModel):
        """One or the other."""

        field: int | str = Field(1, description="Either.")

    with pytest.raises(ValueError, match="no structural schema"):
        structural_schema(Either)


def test_a_message_names_the_value_through_an_expression_whose_cost_is_bounded() -> None:
    entry = Rule("self.a > 0", "a is too small", "a {self.a} is at 0 % of '{self.b}'").to_json()

    assert entry["messageExpression"] == """"a %s is at 0 %% of '%s'".format([self.a, self.b])"""
