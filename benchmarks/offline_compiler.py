"""Compile kernels for a GPU that is not here, and read what the compiler says of them.

Launches made inside ``offline_compilation`` compile for the target and run nothing, so that the host code of
every operation can be driven with CPU tensors. Registers, spills and shared memory come from the machine
code.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import triton
from dllm_kernels.gpu import jit
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

HOPPER = GPUTarget("cuda", 90, 32)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one compiled kernel takes: registers a thread, bytes of local memory a thread (spills), bytes of
    shared memory, and which matrix instructions it uses."""

    kernel: str
    warps: int
    registers: int
    local_bytes: int
    shared_bytes: int
    matrix_unit: str


class _TargetOnly:
    """A driver that knows its target and has no device."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return HOPPER


@contextmanager
def offline_compilation() -> Iterator[list[Any]]:
    """Inside, a launch compiles for a Hopper GPU and appends its kernel to the list; nothing runs."""
    active = driver._active
    driver.set_active(_TargetOnly())
    try:
        with (
            patch.object(jit, "has_dependent_launch", lambda device: True),
            jit.compile_only() as compiled,
        ):
            yield compiled
    finally:
        driver._active = active


def resources_of(kernel: Any) -> Resources:
    """Read a compiled kernel's machine code."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        usage = subprocess.run(
            [tools / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    text = kernel.asm["ptx"]
    unit = "wgmma" if "wgmma.mma_async" in text else "mma" if "mma.sync" in text else "none"
    return Resources(
        kernel=kernel.metadata.name,
        warps=kernel.metadata.num_warps,
        registers=int(_first(r"REG:(\d+)", usage)),
        local_bytes=int(_first(r"LOCAL:(\d+)", usage)) + int(_first(r"STACK:(\d+)", usage)),
        shared_bytes=kernel.metadata.shared,
        matrix_unit=unit,
    )


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"{pattern} is not in cuobjdump's answer: {text!r}")
    return found[1]
