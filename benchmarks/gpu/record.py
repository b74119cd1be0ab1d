"""The JSON file of a run: one entry a part, merged into what earlier runs left."""

from __future__ import annotations

import json
import math
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.figure import PartResult

ROOT = Path(__file__).resolve().parents[2]
_NUMBERS = re.compile(r"\[\n\s*([^\[\]{}\"]*?)\n\s*\]")  # a list of them takes one line
DEFAULT = ROOT / "benchmarks" / "results" / "gpu.json"


def environment(commit: str | None = None) -> dict[str, Any]:
    """Device, versions and commit. ``commit`` is for a machine without the repository's history."""
    has_gpu = torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(0) if has_gpu else None
    return {
        "device": properties.name if properties else platform.processor() or platform.machine(),
        "device_memory_bytes": properties.total_memory if properties else 0,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": _version("triton"),
        "commit": commit or git_commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_commit() -> str:
    """The commit, with ``-dirty`` when files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def load(path: Path) -> dict[str, Any]:
    """An earlier run's record; empty where there is none or it is no JSON."""
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {"parts": {}}
    return record


def entry(result: PartResult, seconds: float, run: dict[str, Any], error: str = "") -> dict[str, Any]:
    """A part's entry; ``run`` is the environment and the scale it was measured in."""
    return {
        "run": run,
        "seconds": round(seconds, 1),
        "error": error or None,
        "figures": [figure.record() for figure in result.figures],
        "data": result.data,
    }


def merge(record: dict[str, Any], part: str, measured: dict[str, Any]) -> dict[str, Any]:
    """``record`` with this part's entry replaced; other parts stay as they were measured."""
    return {**record, "parts": {**record.get("parts", {}), part: measured}}


def save(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rounded(record), indent=1, allow_nan=False) + "\n"
    text = _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text)
    partial.replace(path)


def rounded(value: Any) -> Any:
    """Floats to six significant digits; what is not finite becomes null."""
    match value:
        case float():
            return float(f"{value:.6g}") if math.isfinite(value) else None
        case dict():
            return {str(key): rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [rounded(item) for item in value]
    return value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
