"""A reconcile that holds a template, lets it go, and goes back, on an API server in a dictionary."""

from __future__ import annotations

from typing import Any

import pytest
from dllm_operator.cluster.kube import Kind
from dllm_operator.cluster.labels import POOL, ROLLOUT
from dllm_operator.cluster.observe import Manifest
from dllm_operator.planning.rollout import REVISION, TEMPLATE
from dllm_operator.planning.rollout_record import record_of
from dllm_operator.process.rollouts import Rollouts

from tests.operator import test_reconciler
from tests.operator.objects import make_pod

NAME = "chat-l40s"


class Place(test_reconciler.Place):
    """``revisions`` are the Deployment's ReplicaSets by revision, as their controller keeps them."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(**spec)
        self.revisions: dict[str, Manifest] = {}
        self.kube.list = self._list  # type: ignore[attr-defined]
        self.reconcile()
        self.settle()

    def release(self, name: str, limit: int = 1) -> None:
        """An operator of that release has begun to lead."""
        self.reconciler._rollouts = Rollouts(self.view, limit, name, lambda _: None)
        defaults = self.reconciler._defaults
        self.reconciler._defaults = type(defaults)(name, defaults.image_pull_policy)

    def settle(self, reason: str = "NewReplicaSetAvailable") -> None:
        """What the Deployment's controller says of the template that is there now."""
        live = self.kube.objects["Deployment", NAME]
        known = {
            number for number, template in self.revisions.items() if template == live["spec"]["template"]
        }
        revision = max(known, default=str(len(self.revisions) + 1))
        self.revisions[revision] = live["spec"]["template"]
        is_done = reason == "NewReplicaSetAvailable"
        metadata = live["metadata"] | {
            "generation": 1,
            "uid": "uid-d",
            "resourceVersion": self.kube.next_version(),
            "annotations": live["metadata"]["annotations"] | {REVISION: revision},
        }
        status = {
            "observedGeneration": 1,
            "replicas": 1,
            "updatedReplicas": int(is_done),
            "availableReplicas": 1,
            "conditions": [{"type": "Progressing", "status": str(is_done), "reason": reason}],
        }
        body = live | {"metadata": metadata, "status": status}
        self.view.children["Deployment"].put(self.kube.store(body))
        self.view.pods.put(make_pod(is_ready=True))

    async def _list(self, kind: Kind, namespace: str, selector: str) -> tuple[Manifest, ...]:
        return tuple(
            {
                "metadata": {
                    "ownerReferences": [{"uid": "uid-d"}],
                    "annotations": {REVISION: revision},
                },
                "spec": {
                    "template": template
                    | {
                        "metadata": template["metadata"]
                        | {"labels": template["metadata"]["labels"] | {TEMPLATE: "7d9f"}}
                    }
                },
            }
            for revision, template in self.revisions.items()
        )

    @property
    def live(self) -> Manifest:
        return self.kube.objects["Deployment", NAME]

    @property
    def image(self) -> str:
        return str(self.live["spec"]["template"]["spec"]["containers"][0]["image"])

    def writes(self) -> list[tuple[str, str, str]]:
        return [call for call in self.reconcile() if call[1] == "Deployment"]


@pytest.fixture
def place() -> Place:
    place = Place()
    place.release("r1")
    place.reconcile()
    place.settle()
    place.reconcile()
    return place


def test_a_release_waits_for_its_turn_without_a_write_and_replicas_still_follow(place: Place) -> None:
    before = place.image
    place.release("r2", limit=0)

    assert place.writes() == []
    assert place.reason("Progressing") == "RolloutQueued"

    place.edit(2, replicas=3)
    assert place.writes() == [("apply", "Deployment", NAME)]
    assert (place.image, place.live["spec"]["replicas"]) == (before, 3)
    assert place.writes() == []

    place.release("r2")
    place.writes()
    assert place.image == "r2"


def test_a_release_that_misses_its_deadline_goes_back_to_the_whole_template_and_stays(place: Place) -> None:
    before = place.live["spec"]["template"]
    place.release("r2")
    place.writes()
    assert place.image == "r2"
    place.settle("ProgressDeadlineExceeded")

    assert place.writes() == [("apply", "Deployment", NAME)]

    assert place.live["spec"]["template"] == before
    assert place.reason("Progressing") == "RolledBack"
    assert ("Warning", "RolledBack") in place.events()
    place.settle()
    assert place.writes() == []
    assert (place.image, place.reason("Progressing")) == ("r1", "RolledBack")

    place.release("r3")
    place.writes()
    assert place.image == "r3"
    record = record_of(place.live)
    assert record is not None
    assert record.undone is None


def test_an_operator_that_restarts_goes_on_with_what_the_deployment_remembers(place: Place) -> None:
    place.release("r2")
    place.writes()
    place.settle("ProgressDeadlineExceeded")
    place.release("r2")  # another leader

    place.writes()
    assert place.image == "r1"
    place.settle()
    place.release("r2")
    assert place.writes() == []
    assert place.image == "r1"


def test_without_its_former_replica_set_a_pool_stays_and_says_that_it_is_late(place: Place) -> None:
    place.release("r2")
    place.writes()
    place.settle("ProgressDeadlineExceeded")
    place.revisions.clear()
    place.live["status"]["updatedReplicas"] = 0

    assert place.writes() == []
    assert place.image == "r2"
    assert place.reason("Progressing") == "ProgressDeadlineExceeded"


def test_an_edit_that_misses_its_deadline_stays_as_it_was_asked_for(place: Place) -> None:
    place.edit(2, image="example.local/mine:1")
    place.writes()
    place.settle("ProgressDeadlineExceeded")

    assert place.writes() == []
    assert place.image == "example.local/mine:1"
    assert place.reason("Progressing") == "ProgressDeadlineExceeded"


def test_a_pause_holds_an_edit_and_a_release_until_it_ends(place: Place) -> None:
    place.edit(2, image="example.local/mine:1", rollout={"pause": True})
    place.release("r2")

    assert place.writes() == []
    assert (place.image, place.reason("Progressing")) == ("r1", "Paused")

    place.edit(3, image="example.local/mine:1")
    place.writes()
    assert place.image == "example.local/mine:1"


def test_what_pods_of_a_former_template_need_stays_until_all_is_settled(place: Place) -> None:
    place.release("r2")
    place.writes()
    place.settle("ReplicaSetUpdated")
    stray = {"kind": "ConfigMap", "metadata": dict(place.live["metadata"]) | {"name": "former", "uid": "f"}}
    place.view.children["ConfigMap"].put(place.kube.store(stray))

    assert ("delete", "ConfigMap", "former") not in place.reconcile()

    place.settle()
    assert ("delete", "ConfigMap", "former") in place.reconcile()


def test_what_a_pool_needed_that_is_gone_goes_whatever_the_others_are_at(place: Place) -> None:
    place.release("r2")
    place.writes()
    place.settle("ReplicaSetUpdated")
    metadata = dict(place.live["metadata"])
    labels = metadata["labels"] | {POOL: "gone"}
    stray = {"kind": "ConfigMap", "metadata": metadata | {"name": "former", "uid": "f", "labels": labels}}
    place.view.children["ConfigMap"].put(place.kube.store(stray))

    assert ("delete", "ConfigMap", "former") in place.reconcile()


def test_a_deployment_of_an_operator_without_records_gets_one_and_keeps_its_pods(place: Place) -> None:
    live = place.live
    annotations = {k: v for k, v in live["metadata"]["annotations"].items() if k != ROLLOUT}
    template = live["spec"]["template"]
    metadata = live["metadata"] | {"annotations": annotations, "resourceVersion": place.kube.next_version()}
    place.view.children["Deployment"].put(place.kube.store(live | {"metadata": metadata}))

    place.writes()

    assert place.live["spec"]["template"] == template
    assert record_of(place.live) is not None
