from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dllm_server.settings import (
    DiffusionSettings,
    EngineSettings,
    LiveSettings,
    ServeSettings,
    Strategy,
    TuningFile,
    UnmaskingSettings,
    parse_bytes,
    read_yaml_mapping,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError


def write_yaml(directory: Path, text: str) -> Path:
    path = directory / "dllm.yaml"
    path.write_text(text)
    return path


def test_flags_go_over_environment_over_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_yaml(tmp_path, "port: 1\nmax-num-seqs: 1\npage_size: 1\n")
    monkeypatch.setenv("DLLM_PORT", "2")
    monkeypatch.setenv("DLLM_MAX_NUM_SEQS", "2")

    loaded = ServeSettings.load({"port": "3"}, file)

    assert (loaded.port, loaded.max_num_seqs, loaded.page_size) == (3, 2, 1)
    assert loaded.max_num_logits == LiveSettings().max_num_logits


def test_flags_stay_text_until_the_types_are_known() -> None:
    loaded = ServeSettings.load({"gpu_memory_limit": "24GiB", "retention_ratio": "0.5", "device": "cpu"})

    assert loaded.engine().gpu_memory_limit == 24 * 1024**3
    assert loaded.engine().retention_ratio == 0.5


def test_the_environment_gives_sizes_and_optional_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLLM_KV_POOL_BYTES", "2MiB")
    monkeypatch.setenv("DLLM_REFRESH_INTERVAL", "4")

    loaded = ServeSettings.load({})

    assert (loaded.kv_pool_bytes, loaded.refresh_interval) == (2 * 1024**2, 4)


@pytest.mark.parametrize("line", ["blok_length: 8", "BLOCK_LENGTH: 8", "1: 8"])
def test_an_unknown_key_in_the_file_is_refused_by_name(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match=f"unknown setting {line.split(':')[0]}"):
        ServeSettings.load({}, write_yaml(tmp_path, line))


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(ValidationError, match="nonsense"):
        ServeSettings.load({"nonsense": 1})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- a\n- b", "holds a list"),
        ("just words", "holds a str"),
        ("a: [", "not YAML"),
        ("a: \tb\n\t- c", "not YAML"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused_in_one_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        read_yaml_mapping(write_yaml(tmp_path, text))

    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.yaml: No such file"):
        ServeSettings.load({}, tmp_path / "gone.yaml")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert ServeSettings.load({}, write_yaml(tmp_path, "")) == ServeSettings.load({})


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("1B", 1),
        ("1KiB", 1024),
        ("1 kb", 1000),
        ("1.5GiB", 3 * 2**29),
        ("24gib", 24 * 2**30),
        ("2Gi", 2**31),
        ("1TB", 10**12),
        (5, 5),
    ],
)
def test_a_size_is_a_number_and_a_unit(text: object, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "1PiB", "-1GiB", "1,5GiB", "1e9", "one"])
def test_what_is_no_size_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(ValueError, match="not a size in bytes: write a number and KiB"):
        parse_bytes(text)


@given(st.integers(0, 10**6), st.sampled_from(["", "KiB", "MiB", "GiB"]))
def test_a_whole_number_of_binary_units_is_exact(number: int, unit: str) -> None:
    power = ["", "KiB", "MiB", "GiB"].index(unit)

    assert parse_bytes(f"{number}{unit}") == number * 1024**power


@pytest.mark.parametrize("name", ["gpu_memory_limit", "kv_pool_bytes"])
@pytest.mark.parametrize("given", ["24", 24, "8192", 8192, "24B", "5KB"])
def test_a_memory_size_that_cannot_be_meant_in_bytes_is_refused_with_a_unit(name: str, given: object) -> None:
    with pytest.raises(ValidationError, match="less than 10000 bytes: write a unit, such as 4GiB"):
        ServeSettings.load({name: given})


@pytest.mark.parametrize("source", ["flags", "environment", "file"])
def test_a_size_without_its_unit_is_refused_from_every_source(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags, file = {"gpu_memory_limit": "24"} if source == "flags" else {}, None
    if source == "environment":
        monkeypatch.setenv("DLLM_GPU_MEMORY_LIMIT", "24")
    if source == "file":
        file = write_yaml(tmp_path, "gpu-memory-limit: 24")

    with pytest.raises(ValidationError, match="less than 10000 bytes: write a unit, such as 4GiB"):
        ServeSettings.load(flags, file)


def test_a_body_limit_without_its_unit_is_refused() -> None:
    with pytest.raises(ValidationError, match="less than 1000 bytes: write a unit, such as 4MiB"):
        ServeSettings.load({"max_body_bytes": "4"})


def test_byte_counts_as_kubernetes_gives_them_are_sizes() -> None:
    settings = ServeSettings.load({"gpu_memory_limit": "25769803776", "kv_pool_bytes": 1_000_000})

    assert settings.engine().gpu_memory_limit == 24 * 2**30
    assert EngineSettings.model_validate_json(settings.engine().model_dump_json()) == settings.engine()


ACCEPTED: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (UnmaskingSettings, {"strategy": "quota", "value": 3}),
    (UnmaskingSettings, {"strategy": "threshold", "value": 1}),
    (UnmaskingSettings, {"strategy": "factor", "value": 20}),
    (UnmaskingSettings, {"strategy": "entropy_bound", "value": 1e-9}),
    (DiffusionSettings, {"block_length": 1024, "retention_ratio": 1e-9}),
    (DiffusionSettings, {"unmasking": {"strategy": "quota", "value": 1}, "confidence": "entropy"}),
    (DiffusionSettings, {"unmasking": {"strategy": "threshold"}, "confidence": "margin"}),
    (LiveSettings, {"refresh_share": 1, "admission_watermark": 0.99}),
    (EngineSettings, {"unmasking_strategy": "quota", "unmasking_value": 4, "confidence": "entropy"}),
    (TuningFile, {"generation": 3, "max_num_seqs": 1}),
]
REJECTED: list[tuple[type[BaseModel], dict[str, Any], str]] = [
    (UnmaskingSettings, {"strategy": "quota", "value": 0.5}, "not a whole number"),
    (UnmaskingSettings, {"strategy": "quota", "value": 2.5}, "not a whole number"),
    (UnmaskingSettings, {"strategy": "threshold", "value": 1.01}, "exceeds 1"),
    (UnmaskingSettings, {"strategy": "factor", "value": 0}, "greater than 0"),
    (UnmaskingSettings, {"strategy": "best"}, "strategy"),
    (DiffusionSettings, {"confidence": "entropy"}, "not in \\[0, 1\\]"),
    (DiffusionSettings, {"block_length": 0}, "block_length"),
    (DiffusionSettings, {"block_length": 1025}, "block_length"),
    (DiffusionSettings, {"refresh_interval": 0}, "refresh_interval"),
    (DiffusionSettings, {"retention_ratio": 0}, "retention_ratio"),
    (DiffusionSettings, {"retention_ratio": 1.1}, "retention_ratio"),
    (DiffusionSettings, {"blocks": 1}, "blocks"),
    (LiveSettings, {"refresh_share": 0}, "refresh_share"),
    (LiveSettings, {"admission_watermark": 1}, "admission_watermark"),
    (LiveSettings, {"max_num_seqs": 4097}, "max_num_seqs"),
    (EngineSettings, {"unmasking_strategy": "quota", "unmasking_value": 0.9}, "not a whole number"),
    (EngineSettings, {"gpu_memory_utilization": 1.5}, "gpu_memory_utilization"),
    (EngineSettings, {"page_size": 0}, "page_size"),
    (EngineSettings, {"kv_pool_bytes": "-1GiB"}, "kv_pool_bytes"),
    (ServeSettings, {"port": 65536}, "port"),
    (ServeSettings, {"log_level": "loud"}, "log_level"),
    (TuningFile, {"generation": -1}, "generation"),
    (TuningFile, {"page_size": 4}, "page_size"),
]


@pytest.mark.parametrize(("model", "values"), ACCEPTED)
def test_a_valid_combination_is_accepted(model: type[BaseModel], values: dict[str, Any]) -> None:
    model.model_validate(values)


@pytest.mark.parametrize("strategy", Strategy)
def test_every_strategy_has_a_value_of_its_own_wherever_it_is_set(
    strategy: Strategy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "dllm.yaml"
    config.write_text(f"unmasking_strategy: {strategy}\n")
    from_file = ServeSettings.load({}, config).diffusion_defaults()
    from_flag = ServeSettings.load({"unmasking_strategy": strategy}).diffusion_defaults()
    monkeypatch.setenv("DLLM_UNMASKING_STRATEGY", strategy)
    from_environment = ServeSettings.load({}).diffusion_defaults()

    alone = UnmaskingSettings(strategy=strategy)

    assert [made.unmasking for made in (from_file, from_flag, from_environment)] == [alone] * 3


@pytest.mark.parametrize(("model", "values", "problem"), REJECTED)
def test_nonsense_is_refused_by_name(model: type[BaseModel], values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        model.model_validate(values)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("strategy", ["quota", "threshold", "factor", "entropy_bound"])
def test_a_strategy_value_must_be_a_finite_number(strategy: str, value: float) -> None:
    with pytest.raises(ValidationError):
        UnmaskingSettings.model_validate({"strategy": strategy, "value": value})


@pytest.mark.parametrize("model", [ServeSettings, EngineSettings, DiffusionSettings, TuningFile])
def test_every_field_has_a_place_in_the_json_schema(model: type[BaseModel]) -> None:
    schema = json.loads(json.dumps(model.model_json_schema()))

    assert set(schema["properties"]) == set(model.model_fields)


@pytest.mark.parametrize("model", [ServeSettings, DiffusionSettings, UnmaskingSettings])
def test_every_setting_is_described(model: type[BaseModel]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_a_tuning_file_changes_what_it_names_and_nothing_else() -> None:
    start = LiveSettings(max_num_seqs=7, refresh_share=0.2)

    live = TuningFile(generation=2, max_num_seqs=3).apply_to(start)

    assert live == start.model_copy(update={"max_num_seqs": 3})


def test_engine_and_api_settings_are_parts_of_serve_settings() -> None:
    loaded = ServeSettings.load({"port": "9", "block_length": "4"})

    assert loaded.engine().block_length == 4
    assert loaded.engine().diffusion_defaults().block_length == 4
    assert loaded.api().port == 9
    assert loaded.engine().live_settings() == LiveSettings()
