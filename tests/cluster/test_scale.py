"""Many resources: they follow their specs, then nothing is written, and the operator stays small.

SCALE_RESOURCES says how many. How fast a spec is followed is measured by `python -m benchmarks.operator`,
which this drives and prints.
"""

from __future__ import annotations

import asyncio
import os

import pytest
from dllm_operator.cluster.kube import Kube

from benchmarks.operator import OperatorFigures, measure
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import Images
from tests.cluster.operator_pods import leaders, metric, wait_until_quiet, writes_since
from tests.cluster.serving import RESOURCE
from tests.cluster.simulated_nodes import SimulatedNodes

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

RESOURCES = int(os.environ.get("SCALE_RESOURCES", "20"))
QUIET_SECONDS = 20
MOST_MEMORY_BYTES = 300 * 1024**2


def test_many_resources_follow_their_specs_and_then_cost_nothing(
    cluster: Cluster, operator: Images, namespace: str
) -> None:
    (leader,) = cluster.wait_for("one pod leads", lambda: leaders(cluster))
    with SimulatedNodes(cluster) as nodes:
        for name in ("scale-a", "scale-b"):
            nodes.add(name, labels={"tests.dllm.dev/pool": "scale"})

        figures = asyncio.run(_measure(cluster.env["KUBECONFIG"], namespace))
        cluster.wait_for("every resource is Ready", lambda: _are_all_ready(cluster, namespace), 180)
        quiet_from = wait_until_quiet(cluster, QUIET_SECONDS)

        print(f"\n{figures}, {metric(cluster, leader, 'process_resident_memory_bytes') / 2**20:.0f} MiB")
        assert figures.resources == RESOURCES
        assert writes_since(cluster, quiet_from) == []
        assert metric(cluster, leader, "process_resident_memory_bytes") < MOST_MEMORY_BYTES
        assert metric(cluster, leader, "dllm_operator_queue_depth") == 0


async def _measure(kubeconfig: str, namespace: str) -> OperatorFigures:
    kube = await Kube.connect(kubeconfig)
    try:
        return await measure(kube, namespace, RESOURCES, {"tests.dllm.dev/pool": "scale"})
    finally:
        await kube.close()


def _are_all_ready(cluster: Cluster, namespace: str) -> bool:
    states = [
        {c["type"]: c["status"] for c in body.get("status", {}).get("conditions", ())}
        for body in cluster.list(RESOURCE, namespace)
    ]
    settled = [s for s in states if s.get("Ready") == "True" and s.get("Progressing") == "False"]
    return len(settled) == RESOURCES
