from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.kinds import BY_KIND
from dllm_operator.cluster.kube import KubeError
from dllm_operator.cluster.observe import Manifest
from dllm_operator.process.reconciler import CHANGED_SECONDS, ReconcileError, ReconcileObserver, Reconciler

from tests.operator.objects import (
    DEFAULTS,
    NAMESPACE,
    FakeKube,
    make_body,
    make_claims,
    make_node_body,
    make_planner,
    make_pod,
    make_rollouts,
)

KEY = (NAMESPACE, "chat")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Counts(ReconcileObserver):
    def __init__(self) -> None:
        self.faults: list[str] = []
        self.left_resources = 0

    def internal_error(self, where: str) -> None:
        self.faults.append(where)

    def left(self, resources: int) -> None:
        self.left_resources = resources


class Place:
    """A reconciler on an API server and a view with one GPU node and one resource."""

    def __init__(self, **spec: Any) -> None:
        self.kube, self.view, self.counts = FakeKube(), ClusterView(), Counts()
        self.view.put_node(make_node_body(product="NVIDIA-L40S"))
        self.edit(1, **spec)
        self.planner = make_planner(self.kube, self.view)
        self.reconciler = Reconciler(
            self.kube,  # type: ignore[arg-type]
            self.view,
            self.planner,
            DEFAULTS,
            make_claims(self.kube, self.view),
            "operator-0",
            make_rollouts(self.view),
            lambda: NOW,
            observe=self.counts,
        )

    def edit(self, generation: int, **spec: Any) -> None:
        status = self.status() if ("DLLMDeployment", "chat") in self.kube.objects else {}
        body = make_body(generation=generation, **spec) | {"status": status}
        body["metadata"]["resourceVersion"] = self.kube.next_version()
        self.view.resources.put(self.kube.store(body))

    def reconcile(self) -> list[tuple[str, str, str]]:
        """What was written."""
        self.kube.calls.clear()
        self.kube.bodies.clear()
        asyncio.run(self.reconciler.reconcile(KEY))
        return self.kube.calls

    def status(self) -> Manifest:
        status: Manifest = self.kube.objects["DLLMDeployment", "chat"].get("status", {})
        return status

    def reason(self, kind: str) -> str:
        return str({c["type"]: c["reason"] for c in self.status()["conditions"]}[kind])

    def events(self) -> list[tuple[str, str]]:
        return [(body["type"], body["reason"]) for body in self.kube.bodies if body["kind"] == "Event"]

    def become_ready(self) -> None:
        body = self.kube.objects["Deployment", "chat-l40s"]
        counted = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1}
        metadata = body["metadata"] | {"resourceVersion": self.kube.next_version(), "generation": 1}
        self.view.children["Deployment"].put(body | {"metadata": metadata, "status": counted})
        self.view.pods.put(make_pod(is_ready=True))


def test_a_new_resource_gets_children_a_status_and_an_event() -> None:
    place = Place()

    written = place.reconcile()

    assert ("apply", "Deployment", "chat-l40s") in written
    assert written[-2][:2] == ("apply as dllm-operator-status", "DLLMDeployment")
    assert place.events() == [("Normal", "PodsStarting")]
    assert (place.reason("Ready"), place.reason("SpecValid")) == ("PodsStarting", "Valid")


def test_a_steady_resource_costs_no_write() -> None:
    place = Place()
    place.reconcile()

    assert place.reconcile() == []


def test_pods_that_become_ready_are_told_once() -> None:
    place = Place()
    place.reconcile()
    place.become_ready()

    place.reconcile()
    assert (place.reason("Ready"), place.reason("Progressing")) == ("PodsReady", "Settled")
    assert place.events() == [("Normal", "PodsReady"), ("Normal", "PodsScheduled")]
    assert place.reconcile() == []


def test_an_event_belongs_to_the_resource() -> None:
    place = Place()
    place.reconcile()

    [event] = [body for body in place.kube.bodies if body["kind"] == "Event"]
    involved = event["involvedObject"]
    assert (involved["kind"], involved["name"], involved["uid"]) == ("DLLMDeployment", "chat", "0f9a")
    assert event["metadata"]["namespace"] == NAMESPACE
    assert (event["reportingInstance"], event["firstTimestamp"]) == ("operator-0", "2026-01-01T00:00:00Z")


def test_an_invalid_edit_leaves_the_children_and_says_what_is_wrong() -> None:
    place = Place()
    place.reconcile()
    place.become_ready()
    place.reconcile()
    place.edit(2, engine={"confidence": "entropy"})

    written = place.reconcile()

    assert {kind for _, kind, _ in written} == {"DLLMDeployment", "Event"}
    assert (place.reason("SpecValid"), place.reason("Ready")) == ("InvalidSpec", "PodsReady")
    assert place.events() == [("Warning", "InvalidSpec")]
    assert place.status()["observedGeneration"] == 2


def test_an_edit_reaches_the_child_it_concerns() -> None:
    place = Place()
    place.reconcile()
    place.edit(2, image="example.local/new:2")

    written = place.reconcile()

    assert written[0] == ("apply", "Deployment", "chat-l40s")
    container = place.kube.bodies[0]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "example.local/new:2"
    assert place.status()["observedGeneration"] == 2


@pytest.mark.parametrize(("status", "words"), [(403, "denied by a webhook"), (504, "has not answered")])
def test_a_refused_child_is_in_the_status_and_asks_for_another_try(status: int, words: str) -> None:
    place = Place()
    place.kube.refusals["Service", "chat"] = KubeError(status, "Why", words)

    with pytest.raises(ReconcileError, match=f"Service chat: {words}"):
        place.reconcile()

    assert (place.reason("Ready"), place.reason("Progressing")) == ("ApplyFailed", "ApplyFailed")
    assert place.status()["observedGeneration"] == 1
    place.kube.refusals.clear()
    place.reconcile()
    assert place.reason("Ready") == "PodsStarting"


def test_what_the_api_server_finds_wrong_makes_the_spec_invalid_and_changes_nothing() -> None:
    place = Place()
    place.reconcile()
    place.become_ready()
    place.reconcile()
    place.edit(2, image="example.local/other:1")
    place.kube.refusals["Deployment", "chat-l40s"] = KubeError(422, "Invalid", "spec.image: is not good")

    with pytest.raises(ReconcileError, match="is not good"):
        place.reconcile()

    assert (place.reason("SpecValid"), place.reason("Ready")) == ("InvalidSpec", "PodsReady")
    assert place.events() == [("Warning", "InvalidSpec")]
    place.kube.refusals.clear()
    place.reconcile()
    assert place.reason("SpecValid") == "Valid"


def test_a_spec_larger_than_others_have_room_for_is_refused_and_not_kept() -> None:
    place = Place()
    place.reconcile()
    place.become_ready()
    place.reconcile()
    values = [{"name": f"V{number}", "value": "x" * 32_000} for number in range(40)]
    place.edit(2, podTemplate={"env": values})

    place.reconcile()

    assert (place.reason("SpecValid"), place.reason("Ready")) == ("InvalidSpec", "PodsReady")
    [invalid] = [each for each in place.status()["conditions"] if each["type"] == "SpecValid"]
    assert "characters of JSON are more than the 65536 that the operator takes" in invalid["message"]
    [kept] = place.view.resources.objects.values()
    assert kept["spec"] == {}
    place.edit(3)
    place.reconcile()
    assert place.reason("SpecValid") == "Valid"


def test_a_new_resource_with_such_a_spec_gets_no_children() -> None:
    """Its claim is the first look, at what the API server says of it."""
    values = [{"name": f"V{number}", "value": "x" * 32_000} for number in range(40)]
    place = Place(podTemplate={"env": values})

    written = place.reconcile()

    assert {kind for _, kind, _ in written} == {"DLLMDeployment", "Event"}
    assert place.reason("SpecValid") == "InvalidSpec"


def test_an_object_of_somebody_else_stops_the_resource_and_is_named() -> None:
    place = Place()
    metadata = {"name": "chat-dllm", "namespace": NAMESPACE, "uid": "x", "resourceVersion": "1"}
    place.kube.store({"kind": "ServiceAccount", "metadata": metadata})

    with pytest.raises(ReconcileError):
        place.reconcile()

    assert (place.reason("Ready"), place.reason("Progressing")) == ("NameConflict", "NameConflict")
    assert ("Warning", "NameConflict") in place.events()
    assert ("Deployment", "chat-l40s") not in place.kube.objects


@pytest.mark.parametrize("status", [404, 409], ids=["deleted", "made anew"])
def test_a_resource_that_went_meanwhile_is_no_error(status: int) -> None:
    place = Place()
    place.reconcile()
    place.become_ready()
    place.kube.refusals["DLLMDeployment", "chat"] = KubeError(status, "Gone", "not this one")

    place.reconcile()

    assert place.events() == []


def test_a_status_written_over_a_newer_resource_is_not() -> None:
    place = Place()
    place.reconcile()
    place.become_ready()
    live = place.kube.objects["DLLMDeployment", "chat"]
    newer = live | {"metadata": live["metadata"] | {"generation": 2, "resourceVersion": "9999"}}
    place.kube.store(newer)

    assert asyncio.run(place.reconciler.reconcile(KEY)) == CHANGED_SECONDS
    assert place.kube.objects["DLLMDeployment", "chat"] is newer


def test_a_status_that_cannot_be_written_asks_for_another_try() -> None:
    place = Place()
    place.kube.refusals["DLLMDeployment", "chat"] = KubeError(403, "Forbidden", "no")

    with pytest.raises(KubeError):
        place.reconcile()


@pytest.mark.parametrize("is_known", [True, False], ids=["going", "unknown"])
def test_a_resource_that_is_gone_or_going_is_left_alone(is_known: bool) -> None:
    place = Place()
    [body] = place.view.resources.objects.values()
    if is_known:
        body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    else:
        place.view.resources.drop(body)

    assert place.reconcile() == []


def test_a_gpu_type_that_comes_and_goes_is_followed_and_the_first_pool_stays_first() -> None:
    place = Place()
    place.reconcile()
    place.view.put_node(make_node_body("node-b", "NVIDIA-H200"))

    written = place.reconcile()
    assert ("apply", "Deployment", "chat-h200") in written
    assert [pool["name"] for pool in place.status()["pools"]] == ["l40s", "h200"]
    assert ("apply", "Deployment", "chat-l40s") not in written

    place.view.drop_node("node-a")
    written = place.reconcile()
    assert ("delete", "Deployment", "chat-l40s") in written
    assert [pool["name"] for pool in place.status()["pools"]] == ["h200"]


def test_a_child_deleted_by_hand_comes_back() -> None:
    place = Place()
    place.reconcile()
    body = place.kube.objects.pop(("Service", "chat"))
    place.view.children[BY_KIND["Service"].kind].drop(body)

    assert place.reconcile() == [("apply", "Service", "chat")]
