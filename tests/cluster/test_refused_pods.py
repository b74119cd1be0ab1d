"""Pods that the API server does not let come into being: its words reach the resource, and go again."""

from __future__ import annotations

import pytest

from tests.cluster.resources import Fields, Manifest, Objects, Serving, eventually
from tests.cluster.simulated_nodes import SimulatedNodes, on_node

pytestmark = pytest.mark.cluster

NODE = "simulated-refusals"
SPEC: Fields = {"device": "cpu", "podTemplate": on_node(NODE)}
RETRIED_SECONDS = 120.0  # the ReplicaSet's controller tries again later and later


@pytest.fixture(scope="module", autouse=True)
def node(standing_nodes: SimulatedNodes) -> None:
    standing_nodes.add(NODE)


def quota(pods: int) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few-pods"},
        "spec": {"hard": {"pods": str(pods)}},
    }


def make_quota(objects: Objects, pods: int) -> None:
    """In force when this returns."""
    objects.create(quota(pods))
    eventually(lambda: check_quota(objects))


def check_quota(objects: Objects) -> None:
    assert objects.get("ResourceQuota", "few-pods").get("status", {}).get("hard")


def check_setting(serving: Serving, value: str) -> None:
    """Of every pod there is."""
    found = [pod["spec"]["containers"][0]["env"] for pod in serving.pods()]
    assert {v["value"] for env in found for v in env if v["name"] == "DLLM_MAX_NUM_SEQS"} == {value}


def check_refused(serving: Serving, *words: str) -> None:
    for kind in ("Ready", "Progressing"):
        condition = serving.wait_reason(kind, "PodsRefused")
        assert condition["status"] == "False"
        assert all(each in condition["message"] for each in words), condition["message"]


def test_a_quota_is_told_and_forgotten_once_there_is_room(objects: Objects) -> None:
    make_quota(objects, 0)
    serving = Serving.create(objects, "a", SPEC)

    check_refused(serving, "pool cpu: ", "exceeded quota: few-pods")
    assert serving.condition("PoolsScheduled")["status"] == "False"
    assert {event["type"] for event in serving.events("PodsRefused")} == {"Warning"}

    objects.patch("ResourceQuota", "few-pods", {"spec": {"hard": {"pods": "5"}}})

    serving.wait_ready(RETRIED_SECONDS)


def test_a_quota_without_room_beside_the_old_pods_is_told_while_they_serve(objects: Objects) -> None:
    make_quota(objects, 1)
    serving = Serving.create(objects, "a", SPEC, {"podTemplate": {"rollingUpdate": {"maxSurge": 1}}})
    serving.wait_ready()

    serving.edit({"engine": {"maxNumSeqs": 4}})

    progressing = serving.wait_reason("Progressing", "PodsRefused")
    assert (progressing["status"], serving.condition("Ready")["status"]) == ("False", "True")
    assert "exceeded quota: few-pods" in progressing["message"]

    objects.patch("ResourceQuota", "few-pods", {"spec": {"hard": {"pods": "5"}}})

    eventually(lambda: check_setting(serving, "4"), RETRIED_SECONDS)
    serving.wait_ready()


def test_a_pool_that_fills_its_quota_rolls_out_in_the_place_of_its_pods(objects: Objects) -> None:
    make_quota(objects, 2)
    serving = Serving.create(objects, "a", SPEC, {"replicas": 2})
    serving.wait_ready()

    serving.edit({"engine": {"maxNumSeqs": 4}})

    eventually(lambda: check_setting(serving, "4"), RETRIED_SECONDS)
    serving.wait_ready()


@pytest.mark.parametrize(
    ("field", "words"),
    [("priorityClassName", "PriorityClass"), ("runtimeClassName", "RuntimeClass")],
)
def test_a_class_that_does_not_exist_is_told_by_name(objects: Objects, field: str, words: str) -> None:
    serving = Serving.create(objects, "a", SPEC, {"podTemplate": {field: "absent-class"}})

    check_refused(serving, words, "absent-class")

    serving.edit({"podTemplate": {field: None}})

    serving.wait_ready()


def test_a_limit_range_is_told_by_its_rule(objects: Objects) -> None:
    most = {"type": "Container", "max": {"memory": "64Mi"}}
    objects.create(
        {
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": {"name": "small"},
            "spec": {"limits": [most]},
        }
    )
    large = {"requests": {"memory": "512Mi"}, "limits": {"memory": "512Mi"}}
    serving = Serving.create(objects, "a", SPEC, {"podTemplate": {"resources": large}})

    check_refused(serving, "maximum memory usage per Container is 64Mi")

    objects.delete("LimitRange", "small")

    serving.wait_ready(RETRIED_SECONDS)
