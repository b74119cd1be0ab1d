"""Nodes without a kubelet (KWOK): pods there become Ready with no process, on GPUs that nobody has to own."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from tests.cluster.cluster import Cluster
from tests.cluster.resources import SERVER_SIDE_APPLY, Fields, Manifest, Objects, eventually

HEARTBEAT_SECONDS = 5.0
LEASE_NAMESPACE = "kube-node-lease"
NODE_LABEL = "tests.dllm.dev/node"  # value: the node's name
TAINT = "kwok.x-k8s.io/node"
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Gpu:
    """What GPU feature discovery says of a node; ``shares`` above 1 is time slicing."""

    product: str
    memory_mib: int
    count: int = 8
    shares: int = 1

    def labels(self) -> dict[str, str]:
        return {
            f"{GPU}.present": "true",
            f"{GPU}.product": self.product,
            f"{GPU}.memory": str(self.memory_mib),
            f"{GPU}.count": str(self.count),
            f"{GPU}.replicas": str(self.shares),
            f"{GPU}.sharing-strategy": "time-slicing" if self.shares > 1 else "none",
            "nvidia.com/mig.strategy": "single" if "-MIG-" in self.product else "none",
        }


A10G = Gpu("NVIDIA-A10G", 23028, count=4)
L40S_SHARED = Gpu("NVIDIA-L40S-SHARED", 46068, shares=4)
A100_MIG = Gpu("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", 9728, count=7)
H200 = Gpu("NVIDIA-H200", 143771)
B200 = Gpu("NVIDIA-B200", 183359)


def on_node(name: str) -> Fields:
    """Part of a pod template that puts pods on the simulated node ``name`` alone."""
    return {"nodeSelector": {NODE_LABEL: name}, "tolerations": [{"key": TAINT, "operator": "Exists"}]}


class SimulatedNodes:
    """Makes nodes, keeps their Leases fresh from a thread, and removes them when left.

    Without a fresh Lease the node controller would mark the nodes' pods as not ready after a while.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._nodes = Objects(cluster)
        self._leases = Objects(cluster, LEASE_NAMESPACE)
        self._names: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="node-heartbeats", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for name in list(self._names):
            self.remove(name)

    def add(self, name: str, gpu: Gpu | None = None, labels: dict[str, str] | None = None) -> None:
        """A Ready node, tainted so that nothing else comes; one with GPUs has NVIDIA's usual taint."""
        self._nodes.delete("Node", name)
        self._renew(name)
        self._names.add(name)
        taint = {"key": GPU if gpu else TAINT, "value": "fake", "effect": "NoSchedule"}
        self._nodes.create(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "labels": {"kubernetes.io/hostname": name, NODE_LABEL: name, "type": "kwok"}
                    | (gpu.labels() if gpu else {})
                    | (labels or {}),
                    "annotations": {"kwok.x-k8s.io/node": "fake"},
                },
                "spec": {"taints": [taint]},
            }
        )
        resources = {"cpu": "64", "memory": "512Gi", "pods": "110", "ephemeral-storage": "500Gi"}
        if gpu is not None:
            resources[GPU] = str(gpu.count * gpu.shares)
        self._nodes.patch(
            "Node", name, {"status": {"capacity": resources, "allocatable": resources}}, "status"
        )
        eventually(lambda: self._check_ready(name))

    def relabel(self, name: str, labels: dict[str, str | None]) -> None:
        """Set labels; None removes one."""
        self._nodes.patch("Node", name, {"metadata": {"labels": labels}})

    def cordon(self, name: str, *, is_closed: bool = True) -> None:
        """Let no new pod come, or let them come again."""
        self._nodes.patch("Node", name, {"spec": {"unschedulable": is_closed}})

    def remove(self, name: str) -> None:
        """The node, and its pods as well, which nobody is left to end."""
        self._names.discard(name)
        self._nodes.delete("Node", name)
        self._leases.delete("Lease", name)

    def _check_ready(self, name: str) -> None:
        conditions: list[dict[str, Any]] = self._nodes.get("Node", name)["status"].get("conditions", [])
        ready = [condition["status"] for condition in conditions if condition["type"] == "Ready"]
        assert ready == ["True"], f"no KWOK controller makes node {name} Ready: {conditions}"

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            for name in list(self._names):
                try:
                    self._renew(name)
                except (ApiException, HTTPError, OSError):
                    continue  # the next beat comes before the node counts as lost

    def _renew(self, name: str) -> None:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        lease: Manifest = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": moment},
        }
        self._leases.patch("Lease", name, lease, content_type=SERVER_SIDE_APPLY)
