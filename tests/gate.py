"""``python -m tests.gate``: all tests. Those of a cluster run one by one in a process of their own; before
them the others, in two processes, a file always in one of them. Arguments go to pytest.

Both parts run whatever the first finds; the exit code is that of the first part that failed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

NOTHING_RUN = 5  # pytest's exit code where nothing was selected

PARTS = (
    ("without a cluster", ["--cluster-tests=none", "-n", "2", "--dist", "loadfile"]),
    ("on a cluster", ["--cluster-tests=only"]),
)


def outcome(codes: Sequence[int]) -> int:
    """One exit code of the parts': a part in which nothing was selected counts where all are so."""
    run = [code for code in codes if code != NOTHING_RUN]
    return next((code for code in run if code), 0) if run else NOTHING_RUN


def main(arguments: Sequence[str]) -> int:
    codes = []
    for name, options in PARTS:
        print(f"Tests {name}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", "pytest", *options, *arguments]).returncode)
        if codes[-1] == 2:  # interrupted, or an error while collecting
            break
    return outcome(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
