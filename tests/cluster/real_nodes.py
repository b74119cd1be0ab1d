"""Faults of the nodes that have a kubelet, where the program of CLUSTER started them on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.cluster import Cluster


@contextlib.contextmanager
def without_kubelet(cluster: Cluster, node: str) -> Iterator[None]:
    """Its containers run on, and nobody tells of them."""
    kubelet = node.replace("node", "kubelet")
    cluster.control("kill", kubelet)
    try:
        yield
    finally:
        cluster.control("start", kubelet)


@contextlib.contextmanager
def without_power(cluster: Cluster, node: str) -> Iterator[None]:
    """Every process of its pods is killed as well, and nobody starts another."""
    with without_kubelet(cluster, node):
        for process in _processes(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        yield


def _processes(node: str) -> list[int]:
    """Of the node's pods, by the control group that the program of CLUSTER gives each node."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"/dllm-{node}/" in (folder / "cgroup").read_text():
                found.append(int(folder.name))
    return found
