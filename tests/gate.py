"""``python -m tests.gate``: all tests. Those of a cluster run one by one in a process of their own; beside
them, since they mostly wait, the others in two processes, a file always in one of them. Arguments go to
pytest.

Both parts run whatever the other finds, and print in turn. The exit code is that of the first that failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

NOTHING_RUN = 5  # pytest's exit code where nothing was selected
POLL_SECONDS = 1.0

PARTS = (
    ("on a cluster", ["--cluster-tests=only", "--durations=40"]),
    ("without a cluster", ["--cluster-tests=none", "-n", "2", "--dist", "loadfile", "--durations=40"]),
)
SHY = 10  # how nice the second part is to the first, whose clusters have deadlines


def outcome(codes: Sequence[int]) -> int:
    """One exit code of the parts': a part in which nothing was selected counts where all are so."""
    run = [code for code in codes if code != NOTHING_RUN]
    return next((code for code in run if code), 0) if run else NOTHING_RUN


def start(options: Sequence[str], output: IO[bytes] | None, niceness: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", *options]
    return subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=lambda: os.nice(niceness))


def follow(process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
    """Print what a part has written, and what it writes until it ends."""
    is_over = False
    while not is_over:
        try:
            process.wait(POLL_SECONDS)
            is_over = True
        except subprocess.TimeoutExpired:
            pass
        shutil.copyfileobj(output, sys.stdout.buffer)
        sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    (first, own), (second, others) = PARTS
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "second"
        with log.open("wb") as written, log.open("rb") as reader:
            print(f"Tests {first}, beside those {second}", flush=True)
            parts = [start([*own, *arguments], None, 0), start([*others, *arguments], written, SHY)]
            try:
                parts[0].wait()
                print(f"Tests {second}", flush=True)
                follow(parts[1], reader)
            finally:
                for part in parts:
                    part.kill()
                    part.wait()
    return outcome([part.returncode for part in parts])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
