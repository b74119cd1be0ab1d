from __future__ import annotations

import os
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from dllm_operator.api.crd import crd
from dllm_operator.process.commands import cli
from dllm_operator.process.settings import OperatorSettings
from dllm_server.settings import LogFormat
from pydantic import ValidationError

IMAGE = "example.local/dllm-server:dev"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("DLLM_OPERATOR_"):
            monkeypatch.delenv(name)


def run_cli(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environment)


def test_the_server_image_is_all_that_must_be_given() -> None:
    settings = OperatorSettings(server_image=IMAGE)

    assert (settings.namespaces, settings.lease_name, settings.http_port) == ((), "dllm-operator", 8080)
    assert (settings.log_level, settings.log_format) == ("info", LogFormat.AUTO)
    assert (settings.resync_seconds, settings.image_pull_policy) == (600, "IfNotPresent")
    assert settings.identity


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("NAMESPACES", "team-a,team-b", ("team-a", "team-b")),
        ("NAMESPACES", " team-a , ,team-b,", ("team-a", "team-b")),
        ("NAMESPACES", "", ()),
        ("LEASE_NAME", "other", "other"),
        ("LEASE_NAMESPACE", "dllm-system", "dllm-system"),
        ("IDENTITY", "operator-0", "operator-0"),
        ("HTTP_PORT", "0", 0),
        ("LOG_LEVEL", "debug", "debug"),
        ("LOG_FORMAT", "console", LogFormat.CONSOLE),
        ("RESYNC_SECONDS", "30", 30.0),
        ("AUDIT_SECONDS", "5", 5.0),
        ("IMAGE_PULL_POLICY", "Never", "Never"),
        ("WORKERS", "2", 2),
    ],
)
def test_every_setting_comes_from_the_environment(
    name: str, text: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLLM_OPERATOR_SERVER_IMAGE", IMAGE)
    monkeypatch.setenv(f"DLLM_OPERATOR_{name}", text)

    assert getattr(OperatorSettings(), name.lower()) == value  # type: ignore[call-arg]


def test_what_is_passed_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLLM_OPERATOR_NAMESPACES", "team-a")

    assert OperatorSettings(server_image=IMAGE, namespaces="team-b").namespaces == ("team-b",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"server_image": ""},
        {"http_port": 70000},
        {"log_level": "loud"},
        {"log_format": "xml"},
        {"image_pull_policy": "Sometimes"},
        {"resync_seconds": 0},
        {"workers": 0},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_value_out_of_bounds_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        OperatorSettings(**{"server_image": IMAGE} | fields)


def test_a_missing_server_image_is_an_error_that_says_how_to_give_it() -> None:
    done = run_cli("run")

    assert done.exit_code == 1
    assert "Error: --server-image (DLLM_OPERATOR_SERVER_IMAGE): Field required" in done.output


def test_every_wrong_setting_is_named() -> None:
    done = run_cli(
        "run", "--http-port", "many", DLLM_OPERATOR_SERVER_IMAGE=IMAGE, DLLM_OPERATOR_LOG_LEVEL="loud"
    )

    assert done.exit_code == 1
    assert "--http-port (DLLM_OPERATOR_HTTP_PORT)" in done.output
    assert "--log-level (DLLM_OPERATOR_LOG_LEVEL)" in done.output


def test_an_unknown_flag_is_a_usage_error() -> None:
    assert run_cli("run", "--no-such-flag", "1").exit_code == 2


@pytest.mark.parametrize("name", OperatorSettings.model_fields)
def test_every_setting_has_a_flag_whose_help_names_its_variable(name: str) -> None:
    text = run_cli("run", "--help").output

    assert f"--{name.replace('_', '-')} " in text
    assert f"DLLM_OPERATOR_{name.upper()}" in text


def test_the_definition_is_printed_as_yaml() -> None:
    done = run_cli("crd")

    assert done.exit_code == 0
    assert yaml.safe_load(done.output) == crd()
