from __future__ import annotations

import re

import pytest
from dllm_operator.api.quantity import MEMORY_SIZE_PATTERN
from dllm_operator.api.v1alpha1 import EngineSpec
from dllm_server.settings import EngineSettings
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

SET_ELSEWHERE = {"model", "revision", "served_model_name", "device", "tuning_file"}
SIZES = {"gpu_memory_limit", "kv_pool_bytes"}


def bounds(model: type, name: str) -> dict[str, object]:
    """The JSON schema of a field without its type's name, its default and its words."""
    schema = model.model_json_schema(by_alias=False)
    part = schema["properties"][name]
    for alternative in part.pop("anyOf", []):
        part |= alternative if alternative != {"type": "null"} else {}
    if "$ref" in part:
        part |= schema["$defs"][part.pop("$ref").rsplit("/", 1)[1]]
    return {key: value for key, value in part.items() if key not in ("title", "default", "description")}


def test_the_engine_block_has_every_setting_that_the_resource_does_not_set_elsewhere() -> None:
    assert set(EngineSpec.model_fields) == set(EngineSettings.model_fields) - SET_ELSEWHERE


@pytest.mark.parametrize("name", sorted(set(EngineSpec.model_fields) - SIZES))
def test_a_setting_has_the_servers_type_bounds_and_choices(name: str) -> None:
    assert bounds(EngineSpec, name) == bounds(EngineSettings, name)


@pytest.mark.parametrize("name", sorted(EngineSpec.model_fields))
def test_a_setting_has_no_default_but_the_servers_words(name: str) -> None:
    field, server = EngineSpec.model_fields[name], EngineSettings.model_fields[name]

    assert field.default is None
    assert str(field.description).startswith(str(server.description))
    assert server.default is None or f"The server's default is {server.default}." in str(field.description)


def test_settings_are_those_that_are_set_in_the_servers_spelling() -> None:
    engine = EngineSpec.model_validate(
        {"maxNumSeqs": 3, "confidence": "margin", "kvPoolBytes": "2GiB", "gpuMemoryLimit": 25769803776}
    )

    assert engine.settings() == {
        "max_num_seqs": 3,
        "confidence": "margin",
        "kv_pool_bytes": "2GiB",
        "gpu_memory_limit": "25769803776",
    }
    assert EngineSettings.model_validate(engine.settings()).kv_pool_bytes == 2 * 1024**3


def test_an_empty_block_changes_nothing() -> None:
    assert EngineSpec().settings() == {}


@pytest.mark.parametrize(
    "engine",
    [
        {"kvPoolBytes": "2GB/s"},
        {"kvPoolBytes": -1},
        {"gpuMemoryLimit": 24},
        {"gpuMemoryLimit": "24"},
        {"maxNumSeqs": 0},
        {"device": "cpu"},
        {"model": "a"},
    ],
)
def test_what_the_server_would_not_take_is_refused(engine: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EngineSpec.model_validate(engine)


@given(st.from_regex(r"[ ]?[0-9]{1,9}(\.[0-9]{1,3})?[ ]?([KMGT]i?B?|[A-Za-z]{0,3})", fullmatch=True))
def test_a_size_is_accepted_exactly_when_the_server_reads_it(text: str) -> None:
    try:
        EngineSettings(kv_pool_bytes=text)  # type: ignore[arg-type]
    except ValidationError:
        with pytest.raises(ValidationError):
            EngineSpec.model_validate({"kvPoolBytes": text})
    else:
        assert re.fullmatch(MEMORY_SIZE_PATTERN, text), "the API server's pattern"
        assert EngineSpec.model_validate({"kvPoolBytes": text}).settings() == {"kv_pool_bytes": text}
