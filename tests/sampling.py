"""Hooks of pytest: a test marked ``sampled(share)`` repeats one thing over many cases, of which a run takes
that share, others after each commit; with ``of="..."``, the tests that say the same are cases of one thing.
``SAMPLE_SEED`` repeats a run's choice, ``--every-case`` takes all.
"""

from __future__ import annotations

import math
import os
import random
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent


def pytest_report_header(config: pytest.Config) -> str:
    return "sampled tests: " + (
        "every case" if config.getoption("--every-case") else f"SAMPLE_SEED={seed()}, all with --every-case"
    )


def seed() -> str:
    """The variable's, or the commit's, so that all processes of a run choose alike."""
    return os.environ.get("SAMPLE_SEED") or _commit()


def _commit() -> str:
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # not a checkout
        return "0"


def sample(items: list[pytest.Item], seed: str) -> list[pytest.Item]:
    """Those that run, in their order: of a marked test's cases its share, one at least."""
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if (marker := item.get_closest_marker("sampled")) is not None:
            cases[marker.kwargs.get("of") or item.nodeid.partition("[")[0]].append(item)
    left_out = set()
    for name, group in cases.items():
        (share,) = group[0].get_closest_marker("sampled").args  # type: ignore[union-attr]
        taken = math.ceil(share * len(group))
        left_out |= set(random.Random(f"{seed} {name}").sample(group, len(group) - taken))
    return [item for item in items if item not in left_out]
