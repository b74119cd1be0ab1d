"""Edits, by users and by others, and what becomes of them on a real API server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from dllm_operator.api.v1alpha1 import KIND

from tests.cluster.cluster import Cluster
from tests.cluster.resources import STRATEGIC_PATCH, Fields, Manifest, Objects, Serving, eventually
from tests.cluster.simulated_nodes import SimulatedNodes, on_node

pytestmark = pytest.mark.cluster

NODE = "simulated-edits"
SPEC: Fields = {"device": "cpu", "podTemplate": on_node(NODE)}


@pytest.fixture(scope="module", autouse=True)
def node(standing_nodes: SimulatedNodes) -> None:
    standing_nodes.add(NODE)


def check(is_so: bool, found: Any = None) -> None:
    """For `eventually`."""
    assert is_so, found


def images(serving: Serving) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in serving.pods()}


def test_replicas_follow_an_edit(objects: Objects) -> None:
    serving = Serving.create(objects, "a", SPEC, {"replicas": 1})
    serving.wait_ready()

    serving.edit({"replicas": 3})

    status = serving.wait_ready()
    assert (status["replicas"], status["readyReplicas"], len(serving.pods())) == (3, 3, 3)


def test_a_resource_scaled_to_zero_says_so_and_comes_back(objects: Objects) -> None:
    serving = Serving.create(objects, "a", SPEC)
    serving.wait_ready()

    serving.edit({"replicas": 0})

    serving.wait_reason("Ready", "ScaledToZero")
    serving.wait_reason("PoolsScheduled", "ScaledToZero")
    eventually(lambda: check(serving.pods() == []))
    serving.edit({"replicas": 1})
    serving.wait_ready()


def test_kubectl_scale_sets_the_replicas_of_the_resource(cluster: Cluster, objects: Objects) -> None:
    serving = Serving.create(objects, "a", SPEC)
    serving.wait_ready()

    cluster.kubectl("scale", "dllm/a", "--replicas=2", "-n", str(objects.namespace))

    assert serving.wait_ready()["replicas"] == 2
    assert serving.read()["spec"]["replicas"] == 2


def test_a_changed_image_reaches_every_pod(objects: Objects) -> None:
    serving = Serving.create(objects, "a", SPEC, {"replicas": 2, "image": "example.local/server:1"})
    serving.wait_ready()

    serving.edit({"image": "example.local/server:2"})

    serving.wait_ready()
    eventually(lambda: check(images(serving) == {"example.local/server:2"}, images(serving)))


def test_a_changed_engine_setting_reaches_the_pod_template(objects: Objects) -> None:
    serving = Serving.create(objects, "a", SPEC, {"engine": {"maxNumSeqs": 4}})
    serving.wait_ready()
    assert serving.environment()["DLLM_MAX_NUM_SEQS"] == "4"

    serving.edit({"engine": {"maxNumSeqs": 8}})

    eventually(lambda: check(serving.environment()["DLLM_MAX_NUM_SEQS"] == "8"))
    serving.edit({"engine": {"maxNumSeqs": None}})
    eventually(lambda: check("DLLM_MAX_NUM_SEQS" not in serving.environment()))
    serving.wait_ready()


def test_a_removed_pool_takes_its_children_along(objects: Objects) -> None:
    pools = [{"name": "left"}, {"name": "right"}]
    serving = Serving.create(objects, "a", SPEC, {"gpuPools": pools})
    serving.wait_ready()
    assert ("Deployment", "a-right") in serving.children()

    serving.edit({"gpuPools": pools[:1]})

    gone = {("Deployment", "a-right"), ("ConfigMap", "a-right-tuning")}
    eventually(lambda: check(not gone & serving.children(), serving.children()))
    assert [pool["name"] for pool in serving.wait_ready()["pools"]] == ["left"]
    eventually(lambda: check(len(serving.pods()) == 1))


@dataclass(frozen=True)
class Damage:
    """What somebody does to a child, by hand."""

    kind: str
    name: str
    change: Fields | None  # None deletes it
    content_type: str = STRATEGIC_PATCH

    def __str__(self) -> str:
        return f"{self.kind}-{'deleted' if self.change is None else '-'.join(self.change)}"


def in_template(spec: Fields) -> Fields:
    return {"spec": {"template": {"spec": spec}}}


EXTRA = [{"name": "BY_HAND", "value": "hidden-value"}]
RESTRICTED: Fields = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
UNLABELLED: Fields = {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}
DAMAGES = [
    Damage("Deployment", "a-cpu", None),
    Damage("Service", "a", None),
    Damage("ServiceAccount", "a-dllm", None),
    Damage("ConfigMap", "a-cpu-tuning", None),
    Damage("PodDisruptionBudget", "a", None),
    Damage("NetworkPolicy", "a", None),
    Damage("Deployment", "a-cpu", {"spec": {"replicas": 5}}),
    Damage(
        "Deployment",
        "a-cpu",
        {
            "spec": {
                "template": {
                    "spec": {
                        "containers": [
                            {
                                "name": "engine",
                                "image": "example.local/other:1",
                                "env": [{"name": "DLLM_DEVICE", "value": "cuda"}],
                            }
                        ]
                    }
                }
            }
        },
    ),
    Damage("Deployment", "a-cpu", in_template({"containers": [{"name": "engine", "env": EXTRA}]})),
    Damage(
        "Deployment",
        "a-cpu",
        in_template(
            {
                "containers": [
                    {"name": "side", "image": "example.local/side:1", "securityContext": RESTRICTED}
                ],
                "volumes": [{"name": "side", "emptyDir": {}}],
                "dnsPolicy": "Default",
                "tolerations": [{"key": "by-hand", "operator": "Exists"}],
            }
        ),
    ),
    Damage("Service", "a", {"spec": {"selector": {"app.kubernetes.io/instance": "b"}}}),
    Damage("ConfigMap", "a-cpu-tuning", {"data": {"tuning.json": "{}"}}),
    Damage("NetworkPolicy", "a", {"spec": {"ingress": []}}),
    Damage("PodDisruptionBudget", "a", {"spec": {"maxUnavailable": 7}}),
    Damage("Deployment", "a-cpu", UNLABELLED),
    Damage("Service", "a", UNLABELLED),
]


def content(child: Manifest) -> Fields:
    """What the operator says about a child, as far as it is the child's own."""
    metadata = child["metadata"]
    return {
        "spec": child.get("spec"),
        "data": child.get("data"),
        "labels": metadata.get("labels"),
        "owners": metadata.get("ownerReferences"),
    }


def test_children_that_are_deleted_or_changed_by_hand_are_restored(objects: Objects) -> None:
    """One after the other on one resource, since a resource costs more than a damage."""
    serving = Serving.create(objects, "a", SPEC)
    serving.wait_ready()
    for damage in DAMAGES:
        before = content(objects.get(damage.kind, damage.name))
        if damage.change is None:
            objects.delete(damage.kind, damage.name)
        else:
            damaged = objects.patch(damage.kind, damage.name, damage.change, content_type=damage.content_type)
            assert without_addresses(content(damaged)) != without_addresses(before), str(damage)

        def is_restored(damage: Damage = damage, before: Fields = before) -> None:
            child = objects.find(damage.kind, damage.name)
            assert child is not None, f"{damage}: gone"
            assert "deletionTimestamp" not in child["metadata"], f"{damage}: going"
            assert without_addresses(content(child)) == without_addresses(before), str(damage)

        eventually(is_restored)
    serving.wait_ready()
    told = [str(event["message"]) for event in serving.events("EditUndone")]
    assert any("a-user has set containers.[engine].env.[BY_HAND], which is undone" in each for each in told)
    assert not any("hidden-value" in each for each in told)


def without_addresses(found: Fields) -> Fields:
    """A Service that is made anew gets another address."""
    spec = {k: v for k, v in (found["spec"] or {}).items() if not k.startswith("clusterIP")}
    return found | {"spec": spec}


def test_a_foreign_service_of_the_same_name_is_left_alone_until_it_is_gone(objects: Objects) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a"},
        "spec": {"selector": {"app": "somebody-elses"}, "ports": [{"port": 80}]},
    }
    uid = objects.create(foreign)["metadata"]["uid"]
    serving = Serving.create(objects, "a", SPEC)

    refusal = serving.wait_reason("Progressing", "NameConflict")
    assert "Service a exists and does not belong to this DLLMDeployment: delete" in refusal["message"]
    live = objects.get("Service", "a")
    assert (live["metadata"]["uid"], live["spec"]["selector"]) == (uid, {"app": "somebody-elses"})
    assert "ownerReferences" not in live["metadata"]

    objects.delete("Service", "a")

    serving.wait_ready()
    assert objects.get("Service", "a")["metadata"]["uid"] != uid


def test_an_invalid_edit_names_its_field_and_changes_no_child(objects: Objects) -> None:
    """``confidence: entropy`` does not fit the default strategy, which the schema cannot say."""
    serving = Serving.create(objects, "a", SPEC, {"engine": {"maxNumSeqs": 4}})
    serving.wait_ready()
    before = serving.deployment()["metadata"]["generation"]

    serving.edit({"engine": {"confidence": "entropy", "maxNumSeqs": 16}})

    refusal = serving.wait_reason("SpecValid", "InvalidSpec")
    assert refusal["status"] == "False"
    assert "spec.engine.confidence" in refusal["message"]
    assert serving.deployment()["metadata"]["generation"] == before
    assert serving.condition("Ready")["status"] == "True"

    serving.edit({"engine": {"confidence": None}})

    eventually(lambda: check(serving.environment()["DLLM_MAX_NUM_SEQS"] == "16"))
    serving.wait_ready()
    assert serving.condition("SpecValid")["status"] == "True"


def test_a_resource_that_was_never_valid_starts_nothing(objects: Objects) -> None:
    serving = Serving.create(objects, "a", SPEC, {"engine": {"confidence": "entropy"}})

    serving.wait_reason("Ready", "InvalidSpec")

    assert serving.children() == set()


def test_deleting_a_resource_removes_every_child(objects: Objects) -> None:
    cache = {"model": {"source": "GSAI-ML/LLaDA-8B-Instruct", "cache": {"size": "1Gi"}}}
    serving = Serving.create(objects, "a", SPEC, cache)
    eventually(lambda: check(len(serving.children()) == 7, serving.children()))

    serving.delete()

    def is_gone() -> None:
        assert objects.find(KIND, "a") is None
        assert serving.children() == set()
        assert objects.list("ReplicaSet") == []
        assert objects.list("Pod") == []

    eventually(is_gone)


def test_a_resource_made_anew_under_its_old_name_gets_children_of_its_own(objects: Objects) -> None:
    old = Serving.create(objects, "a", SPEC)
    old.wait_ready()
    old.delete()
    new = Serving.create(objects, "a", SPEC)

    new.wait_ready(60.0)

    uid = new.read()["metadata"]["uid"]

    def is_its_own() -> None:
        for kind, name in new.children():
            child = objects.get(kind, name)
            assert [owner["uid"] for owner in child["metadata"]["ownerReferences"]] == [uid], (kind, name)

    eventually(is_its_own)
