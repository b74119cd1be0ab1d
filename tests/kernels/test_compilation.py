from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.implementations import needs_triton

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.sampled(0.4)
@needs_triton
@pytest.mark.parametrize("model", ["LLaDA-8B", "float32", "Dream-7B", "SDAR-8B", "LLaDA2-mini"])
def test_every_kernel_compiles_for_a_hopper_gpu_without_spilling(model: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}

    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.kernel_resources", "--first", "--model", model],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "0 kernels spill", run.stdout
