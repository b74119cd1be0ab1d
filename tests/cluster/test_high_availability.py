"""Two operator pods: one leads, the other takes over when it dies, and nothing is lost in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from dllm_operator.cluster.kinds import POD
from dllm_operator.cluster.kube import Kube

from tests.cluster.cluster import Cluster, CommandError
from tests.cluster.conftest import RELEASE_NAMESPACE
from tests.cluster.operator_pods import kill, leaders, pod_names, stop
from tests.cluster.resources import Fields, Objects, Serving, eventually
from tests.cluster.simulated_nodes import SimulatedNodes, on_node

pytestmark = pytest.mark.cluster

NODE = "simulated-availability"
SPEC: Fields = {"device": "cpu", "podTemplate": on_node(NODE)}
LEASE_SECONDS = 15
TAKEOVER_SECONDS = 4 * LEASE_SECONDS  # the Lease, the lists of a new leader, a slow machine
RESOURCES = 10


@pytest.fixture(scope="module", autouse=True)
def node(standing_nodes: SimulatedNodes) -> None:
    standing_nodes.add(NODE)


def wait_for_leader(cluster: Cluster, seconds: float = 60.0) -> str:
    """The leader's pod, of two that run."""

    def check() -> str:
        try:
            names, found = pod_names(cluster), leaders(cluster)
        except CommandError as error:  # a pod that has just been made does not answer yet
            raise AssertionError(str(error)) from error
        assert len(names) == 2
        assert len(found) == 1
        return found[0]

    return eventually(check, seconds)


def holder(cluster: Cluster) -> str:
    """Whom the Lease names."""
    lease = Objects(cluster, RELEASE_NAMESPACE).get("Lease", "dllm-operator")
    return str(lease["spec"]["holderIdentity"])


def check_environment(serving: Serving, name: str, value: str) -> None:
    assert serving.environment().get(name) == value


def test_one_of_two_operators_leads(cluster: Cluster, objects: Objects) -> None:
    leader = wait_for_leader(cluster)

    assert holder(cluster) == leader


def test_an_edit_made_while_nobody_leads_is_applied_by_the_next_leader(
    cluster: Cluster, objects: Objects
) -> None:
    serving = Serving.create(objects, "a", SPEC, {"engine": {"maxNumSeqs": 4}})
    serving.wait_ready()
    leader = wait_for_leader(cluster)

    kill(cluster, leader)
    serving.edit({"engine": {"maxNumSeqs": 8}})

    eventually(lambda: check_environment(serving, "DLLM_MAX_NUM_SEQS", "8"), TAKEOVER_SECONDS)
    serving.wait_ready()
    successor = wait_for_leader(cluster)
    assert successor != leader
    assert holder(cluster) == successor


def test_a_leader_that_is_told_to_stop_hands_over_before_its_lease_ends(
    cluster: Cluster, objects: Objects
) -> None:
    serving = Serving.create(objects, "a", SPEC)
    serving.wait_ready()
    leader = wait_for_leader(cluster)

    stop(cluster, leader)
    serving.edit({"replicas": 2})

    assert serving.wait_ready(TAKEOVER_SECONDS)["replicas"] == 2
    assert wait_for_leader(cluster) != leader


def test_resources_made_while_the_leader_dies_all_converge(cluster: Cluster, objects: Objects) -> None:
    leader = wait_for_leader(cluster)

    servings = [Serving.create(objects, f"r{number}", SPEC) for number in range(RESOURCES)]
    kill(cluster, leader)

    for serving in servings:
        serving.wait_ready(TAKEOVER_SECONDS)
        assert len(serving.children()) == 6
    eventually(lambda: check_pods(objects, RESOURCES))
    wait_for_leader(cluster)


def check_pods(objects: Objects, count: int) -> None:
    assert len(objects.list("Pod")) == count


def test_a_look_at_a_cluster_without_resources_finds_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """The leader compares its watches with such lists; the API server writes an empty one as null."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(cluster.kubectl("config", "view", "--raw"))

    assert asyncio.run(_versions(str(kubeconfig))) == {}


async def _versions(kubeconfig: str) -> dict[str, int]:
    kube = await Kube.connect(kubeconfig)
    try:
        return await kube.versions(POD, "default", "absent=label")
    finally:
        await kube.close()
