"""Advice for packages that are missing, without an index that has this distribution."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from dllm_operator.process.commands import cli as operator_cli
from dllm_server.cli.commands import cli
from dllm_server.extras import absent, install_target, is_foreign, requirements

REQUIRES = [
    "click>=8.1",
    "reasoning-gym>=0.1.25; extra == 'evaluate'",
    'triton>=3.6 ; extra == "gpu"',
    "torch>=2.11; extra == 'server'",
    "triton==3.6.0; (platform_system == 'Linux') and extra == 'test'",
]


def test_an_extras_packages_are_those_that_only_it_brings() -> None:
    assert requirements(REQUIRES, ["evaluate"]) == ["reasoning-gym>=0.1.25"]
    assert requirements(REQUIRES, ["server", "gpu"]) == ["triton>=3.6", "torch>=2.11"]


def test_only_what_is_not_installed_is_absent() -> None:
    assert absent(["pytest>=8", "no-such-distribution>=1"]) == ["no-such-distribution>=1"]


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (
            {"url": "file:///home/me/dllm%20serve", "dir_info": {"editable": True}},
            ["--editable", "'/home/me/dllm serve[evaluate]'"],
        ),
        ({"url": "file:///tmp/dllm_serve-0.1.0.whl"}, ["'/tmp/dllm_serve-0.1.0.whl[evaluate]'"]),
        ({"url": "https://example.com/dllm.whl"}, []),
        ({}, []),
    ],
    ids=["checkout", "wheel", "elsewhere", "unknown"],
)
def test_the_advice_names_where_the_distribution_came_from(
    origin: dict[str, object], expected: list[str]
) -> None:
    assert install_target(json.dumps(origin), ["evaluate"]) == expected
    assert install_target(None, ["evaluate"]) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ModuleNotFoundError("gone", name="reasoning_gym"), True),
        (ModuleNotFoundError("gone", name="dllm_server.engine.gone"), False),
        (ImportError("cannot import name 'x'", name="torch"), False),
        (ModuleNotFoundError("gone"), False),
    ],
)
def test_what_is_broken_in_our_own_code_is_no_missing_package(error: ImportError, expected: bool) -> None:
    assert is_foreign(error) is expected


@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        (
            "reasoning_gym",
            ["evaluate", "--items", "1", "--family", "chain_sum", "--mode", "threshold-0.9"],
            "dllm evaluate needs the Python module reasoning_gym, which is not installed: ",
        ),
        ("torch", ["plan"], "dllm plan needs the Python module torch"),
        ("structlog", ["generate", "--prompt", "hi"], "dllm generate needs the Python module structlog"),
        ("uvicorn", ["serve", "--port", "0"], "dllm serve needs the Python module uvicorn"),
        ("aiohttp", ["bench"], "dllm bench needs the Python module aiohttp"),
        ("aiohttp", ["top", "--once"], "dllm top needs the Python module aiohttp"),
    ],
)
def test_a_command_without_a_package_of_its_extra_says_in_one_line_how_to_install_it(
    module: str, arguments: list[str], expected: str
) -> None:
    program = f"import sys; sys.modules[{module!r}] = None; from dllm_server.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=240
    )

    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert expected in last
    assert "pip install " in last


@pytest.mark.parametrize("command", ["bench", "top"])
def test_bench_and_top_need_nothing_of_a_server(command: str) -> None:
    absent_modules = ["torch", "numpy", "transformers", "fastapi", "starlette", "msgspec", "structlog", "zmq"]
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({absent_modules!r})); "
        "from dllm_server.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, command, "127.0.0.1:1"], capture_output=True, text=True, timeout=240
    )

    assert "needs the Python module" not in result.stderr
    assert "127.0.0.1:1" in result.stdout + result.stderr


def test_the_operator_without_its_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dllm_operator.process.operator", raising=False)
    monkeypatch.setitem(sys.modules, "kopf", None)

    result = CliRunner().invoke(operator_cli, ["run", "--server-image", "server:1"])

    assert result.exit_code == 1
    assert "dllm-operator run needs the Python module kopf, which is not installed: " in result.output


def test_a_gpu_without_triton_is_told_how_to_get_it() -> None:
    program = """
import sys
sys.modules["triton"] = None
import torch
from dllm_server.engine.device.kernel_choice import pick_backend
from dllm_server.extras import MissingPackageError
from dllm_server.settings import KernelBackend
try:
    pick_backend(KernelBackend.AUTO, torch.device("cuda"), 64)
except MissingPackageError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)

    assert "kernel_backend triton (which auto takes on CUDA) needs the Python module triton" in result.stdout


def test_help_needs_no_extra() -> None:
    result = CliRunner().invoke(cli, ["serve", "--help"])

    assert result.exit_code == 0
