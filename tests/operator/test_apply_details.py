from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.planning.plan import plan
from dllm_operator.render import render
from dllm_operator.writing.apply import Applier

from tests.operator.objects import DEFAULTS, NAMESPACE, UID, FakeKube, make_gpu, make_observed, make_resource

AUTOSCALING = {
    "minReplicas": 3,
    "maxReplicas": 8,
    "metric": {"target": 4},
    "prometheusAddress": "http://p:9090",
}


class Place:
    def __init__(self) -> None:
        self.kube, self.view = FakeKube(), ClusterView()
        self.applier = Applier(self.kube, self.view)  # type: ignore[arg-type]

    def sync(self, **spec: Any) -> list[str]:
        """Its problems."""
        resource = make_resource(**spec)
        assert resource.spec is not None
        planned = plan(resource.name, resource.spec, make_observed(gpu_types=(make_gpu(),)))
        manifests = render(resource, resource.spec, planned, DEFAULTS)
        self.kube.calls.clear()
        self.kube.bodies.clear()
        return list(asyncio.run(self.applier.sync(resource, manifests, planned.pools)).all_problems)

    def deployment_calls(self) -> list[str]:
        return [verb for verb, kind, _ in self.kube.calls if kind == "Deployment"]


@pytest.mark.parametrize(
    "owner",
    [
        pytest.param(
            {"kind": "DLLMDeployment", "name": "other", "uid": "x", "controller": True}, id="another resource"
        ),
        pytest.param(
            {"kind": "Deployment", "name": "chat", "uid": "x", "controller": True},
            id="a namesake of another kind",
        ),
        pytest.param(
            {"kind": "DLLMDeployment", "name": "chat", "uid": UID, "controller": False},
            id="one that only refers to the resource",
        ),
    ],
)
def test_a_child_of_somebody_else_is_never_deleted(owner: dict[str, Any]) -> None:
    place = Place()
    metadata = {"name": "chat", "namespace": NAMESPACE, "uid": "1", "resourceVersion": "1"}
    foreign = place.kube.store({"kind": "Service", "metadata": metadata | {"ownerReferences": [owner]}})

    [problem] = place.sync()

    assert problem.startswith("Service chat exists and does not belong to this DLLMDeployment")
    assert place.kube.objects["Service", "chat"] is foreign
    assert (place.kube.calls, place.kube.tries) == ([], [])


def test_a_fixed_number_of_replicas_has_one_manager() -> None:
    place = Place()
    place.sync(replicas=5)

    assert place.deployment_calls() == ["apply"]


def test_what_holds_the_replicas_of_a_new_deployment_names_it_and_nothing_but_the_number() -> None:
    place = Place()
    place.sync(autoscaling=AUTOSCALING)

    assert place.kube.bodies[-1] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "chat-l40s", "namespace": NAMESPACE},
        "spec": {"replicas": 3},
    }


def test_a_change_of_an_autoscaled_deployment_leaves_its_replicas_to_who_holds_them() -> None:
    place = Place()
    place.sync(autoscaling=AUTOSCALING)

    place.sync(autoscaling=AUTOSCALING, image="example.local/other:1")

    assert place.deployment_calls() == ["apply"]
    [body] = [body for body in place.kube.bodies if body["kind"] == "Deployment"]
    assert "replicas" not in body["spec"]
    assert place.kube.objects["Deployment", "chat-l40s"]["spec"]["replicas"] == 3
