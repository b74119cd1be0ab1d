"""Fail the build when what is installed does not fit the device: `check_torch.py cpu|cuda`."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.metadata import distributions
from pathlib import Path

CUDA_PACKAGES = re.compile(r"nvidia|cuda|triton|pytorch[-_]triton")


def cuda_version() -> str | None:
    """The CUDA that torch was built for, without importing it: its libraries may not be there yet."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        sys.exit("torch is not installed")
    version = (Path(spec.origin).parent / "version.py").read_text()
    found = re.search(r"^cuda.*= '(.+)'$", version, re.MULTILINE)
    return found[1] if found else None


device = sys.argv[1]
built_for = cuda_version()
extra = sorted(
    name for package in distributions() if CUDA_PACKAGES.match(name := package.metadata["Name"].lower())
)
if device == "cpu" and built_for is not None:
    sys.exit(
        f"DEVICE=cpu, but torch is built for CUDA {built_for}: "
        "set TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu"
    )
if device == "cpu" and extra:
    sys.exit(f"DEVICE=cpu, but CUDA packages are installed: {', '.join(extra)}")
if device == "cuda" and built_for is None:
    sys.exit("DEVICE=cuda, but torch is built for CPUs: leave TORCH_INDEX_URL empty or name a CUDA index")
