"""How many CPUs this process may use: a container's limit makes them fewer than the machine has.

Imports nothing but the standard library: it runs before the libraries that count CPUs are imported.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """The CPUs of the process's affinity (and so of its cpuset), or its quota where that is less; a fraction
    counts as one."""
    quota = cpu_quota(CGROUPS, MEMBERSHIP.read_text() if MEMBERSHIP.is_file() else "")
    return _affinity() if quota is None else max(1, min(_affinity(), math.ceil(quota)))


def limit_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Tell OpenMP, by which torch and numpy compute, of a quota: it sees the affinity alone, and its threads
    would wait for each other through the quota's pauses. What the user has set stays."""
    cpus = usable_cpus()
    if cpus < _affinity():
        environment.setdefault("OMP_NUM_THREADS", str(cpus))


def cpu_quota(cgroups: Path, membership: str) -> float | None:
    """CPUs that the cgroups of a process (version 2 or 1) may use: the least of all levels, None without a
    limit.

    ``cgroups`` is where they are mounted, ``membership`` what /proc/self/cgroup holds. In a container the
    mount may begin at its own cgroup, whose path is then not below it.
    """
    quotas = [quota for folder in _folders(cgroups, membership) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _folders(cgroups: Path, membership: str) -> Iterator[Path]:
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        inside = PurePosixPath(path.lstrip("/"))
        yield from (
            (cgroups / "cpu" if controllers else cgroups) / level for level in (inside, *inside.parents)
        )


def _quota_of(folder: Path) -> float | None:
    """Of one level; -1 and "max" are no limit."""
    try:
        if (version_2 := folder / "cpu.max").is_file():
            quota, period = version_2.read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
