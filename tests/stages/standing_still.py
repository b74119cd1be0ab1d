"""Programs that stand still at a stage, to be told to stop there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

HERE = Path(__file__).parent
DEADLINE_SECONDS = 240.0  # of a machine that does other work as well


@contextmanager
def standing_still(
    program: Sequence[str], stage: str, folder: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The program, once it or its child stands still at ``stage`` (see sitecustomize.py). What is left of it
    at the end is killed."""
    mark = folder / "stands-still"
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    settings = {
        "STAND_STILL_AT": stage,
        "STANDS_STILL": str(mark),
        "PYTHONPATH": paths,
        "TMPDIR": str(folder),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *program], stderr=log, env=os.environ | settings | environment
        )
    try:
        until(lambda: mark.exists() or process.poll() is not None, f"it stands still at {stage}")
        assert process.poll() is None, (folder / "log").read_text()
        yield process
    finally:
        for pid in {process.pid, int(mark.read_text()) if mark.exists() else process.pid}:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()
        process.wait()


def who_stands_still(folder: Path) -> int:
    return int((folder / "stands-still").read_text())


def is_gone(pid: int) -> bool:
    """Also where nobody has asked for its end yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS:g} s: {what}"
        time.sleep(0.02)
