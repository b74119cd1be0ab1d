"""Rollouts where there is no room for a new pod, and pods that share a volume of one node.

The GPUs are of simulated nodes, so that each test has as many as it needs and no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.resources import Fields, Manifest, Objects, Serving, eventually
from tests.cluster.simulated_nodes import Gpu, SimulatedNodes

pytestmark = pytest.mark.cluster

BESIDE = {"maxSurge": 1, "maxUnavailable": 0}
IN_PLACE = {"maxSurge": 0, "maxUnavailable": 1}
ONE, MANY = (Gpu("NVIDIA-TEST-ROLLOUT", 46068, count=count) for count in (1, 4))
OTHER = Gpu("NVIDIA-TEST-OTHER", 46068, count=1)
POOL = "gpus"
SPEC: Fields = {"gpuPools": [{"name": POOL, "product": ONE.product}]}
HUB: Fields = {"model": {"source": "example/model"}}


def placed_pods(serving: Serving) -> dict[str, str]:
    """Node by pod."""
    return {p["metadata"]["name"]: p["spec"]["nodeName"] for p in serving.pods() if "nodeName" in p["spec"]}


def strategy(serving: Serving) -> Fields:
    found: Fields = serving.deployment(POOL)["spec"]["strategy"]["rollingUpdate"]
    return found


def check_strategy(serving: Serving, wanted: Fields) -> None:
    assert strategy(serving) == wanted


def check_setting(serving: Serving, value: str) -> None:
    """Of every pod there is."""
    found = [pod["spec"]["containers"][0]["env"] for pod in serving.pods()]
    values = {item["value"] for env in found for item in env if item["name"] == "DLLM_MAX_NUM_SEQS"}
    assert values == {value}


def test_a_full_pool_rolls_out_in_the_place_of_its_pods(objects: Objects, nodes: SimulatedNodes) -> None:
    nodes.add("rollout-full", ONE)
    serving = Serving.create(objects, "full", SPEC)
    serving.wait_ready()
    check_strategy(serving, BESIDE)

    serving.edit({"engine": {"maxNumSeqs": 4}})

    eventually(lambda: check_setting(serving, "4"))
    serving.wait_ready()
    eventually(lambda: check_strategy(serving, BESIDE))


def test_a_pool_with_a_free_gpu_keeps_its_pod_until_the_new_one_serves(
    objects: Objects, nodes: SimulatedNodes
) -> None:
    nodes.add("rollout-room", MANY)
    serving = Serving.create(objects, "room", SPEC, {"engine": {"maxNumSeqs": 8}})
    serving.wait_ready()

    serving.edit({"engine": {"maxNumSeqs": 4}})

    eventually(lambda: check_setting(serving, "4"))
    serving.wait_ready()
    strategies = {str(event["message"]) for event in serving.events("Unschedulable")}
    assert (strategy(serving), strategies) == (BESIDE, set())


def test_a_rollout_whose_numbers_are_fixed_says_what_blocks_it_and_how_to_go_on(
    objects: Objects, nodes: SimulatedNodes
) -> None:
    nodes.add("rollout-fixed", ONE)
    serving = Serving.create(objects, "fixed", SPEC, {"podTemplate": {"rollingUpdate": BESIDE}})
    serving.wait_ready()
    before = placed_pods(serving)

    serving.edit({"engine": {"maxNumSeqs": 4}})

    progressing = serving.wait_reason("Progressing", "RolloutBlocked")
    assert progressing["status"] == "False"
    assert "fixes maxSurge 1 and maxUnavailable 0" in progressing["message"]
    assert "mode Auto" in progressing["message"]
    assert placed_pods(serving) == before
    assert serving.condition("Ready")["status"] == "True"
    assert len(serving.events("RolloutBlocked")) == 1

    serving.edit({"podTemplate": {"rollingUpdate": {"mode": "Auto"} | dict.fromkeys(BESIDE)}})

    eventually(lambda: check_setting(serving, "4"))
    serving.wait_ready()


def test_no_pod_goes_for_one_that_could_not_take_its_place(objects: Objects, nodes: SimulatedNodes) -> None:
    nodes.add("rollout-here", ONE)
    serving = Serving.create(objects, "elsewhere", SPEC)
    serving.wait_ready()
    before = placed_pods(serving)

    serving.edit({"podTemplate": {"nodeSelector": {"tests.dllm.dev/nowhere": "true"}}})

    progressing = serving.wait_reason("Progressing", "RolloutBlocked")
    assert "asks for other nodes" in progressing["message"]
    assert placed_pods(serving) == before
    assert serving.condition("Ready")["status"] == "True"


def make_volume(objects: Objects, claim: str, mode: str) -> Manifest:
    """For that claim and no other."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{objects.namespace}-{claim}", "labels": {"tests.dllm.dev/temporary": "true"}},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": [mode],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": objects.namespace, "name": claim},
            "storageClassName": "",
            "hostPath": {"path": "/var/tmp/never-mounted"},
        },
    }


def make_claim(name: str, mode: str) -> Manifest:
    spec: dict[str, Any] = {
        "accessModes": [mode],
        "storageClassName": "",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": spec,
    }


@pytest.fixture
def volumes(cluster: Cluster, objects: Objects) -> Iterator[Objects]:
    """Of the whole cluster; those made for this test's namespace go with it."""
    everywhere = Objects(cluster)
    yield everywhere
    for volume in everywhere.list("PersistentVolume"):
        if volume["metadata"]["name"].startswith(f"{objects.namespace}-"):
            everywhere.delete("PersistentVolume", volume["metadata"]["name"])


def test_pods_that_share_a_volume_of_one_node_stay_on_it(
    objects: Objects, nodes: SimulatedNodes, volumes: Objects
) -> None:
    nodes.add("rollout-a", MANY)
    nodes.add("rollout-b", MANY)
    volumes.create(make_volume(objects, "shared-cache", "ReadWriteOnce"))
    cache = {"model": {"cache": {"size": "1Gi"}}}
    serving = Serving.create(objects, "shared", HUB, cache, SPEC, {"replicas": 3})

    serving.wait_ready()
    assert len(set(placed_pods(serving).values())) == 1

    serving.edit({"engine": {"maxNumSeqs": 4}})

    eventually(lambda: check_setting(serving, "4"))
    serving.wait_ready()
    assert len(set(placed_pods(serving).values())) == 1


def test_a_volume_of_one_node_for_two_pools_is_refused_by_name(
    objects: Objects, nodes: SimulatedNodes
) -> None:
    nodes.add("rollout-one", ONE)
    objects.create(make_claim("weights", "ReadWriteOnce"))
    two = [{"name": "one", "product": ONE.product}, {"name": "two", "product": OTHER.product}]
    spec: Fields = {"model": {"source": "pvc://weights/model"}, "gpuPools": two}
    serving = Serving.create(objects, "pools", spec)

    valid = serving.wait_reason("SpecValid", "InvalidSpec")

    assert "claim weights is ReadWriteOnce" in valid["message"]
    assert "pools one, two" in valid["message"]
    assert not [name for kind, name in serving.children() if kind == "Deployment"]

    serving.edit({"gpuPools": two[:1]})

    serving.wait_reason("SpecValid", "Valid")
    eventually(lambda: serving.deployment("one"))


def test_a_claim_that_comes_late_or_turns_out_too_narrow_is_seen(
    objects: Objects, nodes: SimulatedNodes, volumes: Objects
) -> None:
    nodes.add("rollout-late", MANY)
    serving = Serving.create(objects, "late", {"model": {"source": "pvc://late/model"}, "replicas": 2}, SPEC)
    serving.wait_reason("SpecValid", "Valid")

    volumes.create(make_volume(objects, "late", "ReadWriteOncePod"))
    objects.create(make_claim("late", "ReadWriteOncePod"))

    valid = serving.wait_reason("SpecValid", "InvalidSpec")
    assert "claim late is ReadWriteOncePod" in valid["message"]

    serving.edit({"replicas": 1})

    serving.wait_ready()
    check_strategy(serving, IN_PLACE)
    serving.edit({"engine": {"maxNumSeqs": 4}})
    eventually(lambda: check_setting(serving, "4"))
    serving.wait_ready()
