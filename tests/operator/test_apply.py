from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.kinds import BY_KIND
from dllm_operator.cluster.kube import KubeError
from dllm_operator.cluster.observe import Integration, Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.plan import plan
from dllm_operator.render import render
from dllm_operator.writing.apply import REPLICAS_MANAGER, Applier

from tests.operator.objects import (
    DEFAULTS,
    NAMESPACE,
    FakeKube,
    make_gpu,
    make_observed,
    make_resource,
    only,
    render_resource,
)

AUTOSCALING = {
    "minReplicas": 3,
    "maxReplicas": 8,
    "metric": {"target": 4},
    "prometheusAddress": "http://p:9090",
}
DENIED = KubeError(403, "Forbidden", "denied by a webhook")


class Place:
    """An applier with the API server and the view it works on; ``sync`` brings a resource about."""

    def __init__(self) -> None:
        self.kube, self.view = FakeKube(), ClusterView()
        self.applier = Applier(self.kube, self.view)  # type: ignore[arg-type]

    def sync(self, resource: Resource, autoscaled: frozenset[str] = frozenset()) -> list[str]:
        assert resource.spec is not None
        observed = make_observed(
            gpu_types=(make_gpu(),),
            autoscaled=autoscaled,
            integrations=frozenset({Integration.SCALED_OBJECT}),
        )
        planned = plan(resource.name, resource.spec, observed)
        manifests = render(resource, resource.spec, planned, DEFAULTS)
        self.kube.calls.clear()
        return list(asyncio.run(self.applier.sync(resource, manifests, planned.pools)).problems)

    def see(self, body: Manifest) -> None:
        """An object that exists and that the watches have shown."""
        self.view.children[body["kind"]].put(self.kube.store(body))

    def replicas(self) -> int:
        return int(self.kube.objects["Deployment", "chat-l40s"]["spec"]["replicas"])

    def edit(self, kind: str, name: str, **spec: Any) -> None:
        """A change by somebody else, as the watches show it."""
        live = self.kube.objects[kind, name]
        version = str(int(live["metadata"]["resourceVersion"]) + 1000)
        metadata = live["metadata"] | {"resourceVersion": version}
        self.see(live | {"metadata": metadata, "spec": live["spec"] | spec})


def test_a_new_resource_gets_every_child_with_deployments_last() -> None:
    place, resource = Place(), make_resource()

    assert place.sync(resource) == []

    rendered = {(m["kind"], m["metadata"]["name"]) for m in render_resource(resource, _observed())}
    assert {(kind, name) for _, kind, name in place.kube.calls} == rendered
    assert place.kube.calls[-1] == ("apply", "Deployment", "chat-l40s")


def test_pods_are_made_after_what_they_refer_to_whatever_the_order_of_the_manifests() -> None:
    place, resource = Place(), make_resource()
    manifests = render_resource(resource, _observed())[::-1]

    asyncio.run(place.applier.sync(resource, manifests, ()))

    kinds = [kind for _, kind, _ in place.kube.calls]
    assert kinds.index("Deployment") == len(kinds) - 1


def test_nothing_is_written_where_nothing_drifted() -> None:
    place, resource = Place(), make_resource()
    place.sync(resource)

    assert place.sync(resource) == []
    assert place.kube.calls == []


def test_a_restarted_operator_writes_nothing_either() -> None:
    place, resource = Place(), make_resource()
    place.sync(resource)

    place.applier = Applier(place.kube, place.view)  # type: ignore[arg-type]
    place.sync(resource)

    assert place.kube.calls == []


def test_only_a_child_that_somebody_edited_is_applied_again() -> None:
    place, resource = Place(), make_resource()
    place.sync(resource)
    place.edit("Deployment", "chat-l40s", replicas=7)

    place.sync(resource)

    assert place.kube.calls == [("apply", "Deployment", "chat-l40s")]
    assert place.replicas() == 1


def test_a_child_that_the_api_server_stores_otherwise_is_not_applied_for_ever() -> None:
    place, resource = Place(), make_resource()
    place.sync(resource)
    service = place.kube.objects["Service", "chat"]
    service["spec"] = service["spec"] | {"type": "Unexpected"}

    place.sync(resource)

    assert place.kube.calls == []


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen", "without our labels"])
def test_somebody_elses_object_of_that_name_is_left_alone_and_named(is_seen: bool) -> None:
    place, resource = Place(), make_resource()
    foreign = only(render_resource(resource, _observed()), "Service")
    metadata = foreign["metadata"] | {"ownerReferences": [], "uid": "x", "resourceVersion": "1"}
    body = place.kube.store(foreign | {"metadata": metadata})
    if is_seen:
        place.see(body)

    [problem] = place.sync(resource)

    assert problem.startswith(
        "Service chat: exists and does not belong to this DLLMDeployment: delete or rename"
    )
    assert place.kube.objects["Service", "chat"] is body
    assert ("apply", "Deployment", "chat-l40s") in place.kube.calls


def test_a_child_of_a_deleted_namesake_is_removed_and_made_later() -> None:
    place = Place()
    place.sync(make_resource(uid="old"))

    problems = place.sync(make_resource(uid="new"))

    assert all("belongs to a deleted resource of this name" in problem for problem in problems)
    assert {verb for verb, _, _ in place.kube.calls} == {"delete"}
    assert place.kube.objects == {}
    for kind in BY_KIND:
        place.view.children[kind].objects.clear()
        place.view.children[kind].by_owner.clear()
    assert place.sync(make_resource(uid="new")) == []


def test_a_refused_child_is_named_and_does_not_stop_the_others() -> None:
    place, resource = Place(), make_resource()
    place.kube.refusals["Service", "chat"] = DENIED

    assert place.sync(resource) == ["Service chat: denied by a webhook"]
    assert ("Deployment", "chat-l40s") in place.kube.objects

    place.kube.refusals.clear()
    assert place.sync(resource) == []
    assert place.kube.calls == [("apply", "Service", "chat")]


def test_what_is_no_refusal_ends_the_attempt() -> None:
    place = Place()
    place.kube.refusals["Service", "chat"] = TimeoutError()  # type: ignore[assignment]

    with pytest.raises(TimeoutError):
        place.sync(make_resource())


def test_what_the_resource_no_longer_wants_is_deleted() -> None:
    place = Place()
    place.sync(make_resource())

    place.sync(make_resource(generation=2, networking={"networkPolicy": {"enabled": False}}))

    assert place.kube.calls == [("delete", "NetworkPolicy", "chat")]


def test_only_what_the_resource_owns_and_is_not_going_is_deleted() -> None:
    place, resource = Place(), make_resource()
    labels = {"app.kubernetes.io/instance": "chat", "app.kubernetes.io/managed-by": "dllm-operator"}
    base = {"namespace": NAMESPACE, "labels": labels, "resourceVersion": "1"}
    owned = base | {"ownerReferences": [resource.owner_reference]}
    for metadata in (
        base | {"name": "by-hand", "uid": "1"},
        owned | {"name": "going", "uid": "2", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        owned | {"name": "left-over", "uid": "3"},
    ):
        place.see({"kind": "ConfigMap", "metadata": metadata})

    place.sync(resource)

    assert [name for verb, _, name in place.kube.calls if verb == "delete"] == ["left-over"]


def test_a_refused_deletion_is_named_and_does_not_stop_the_others() -> None:
    place = Place()
    place.sync(make_resource())
    place.kube.refusals["NetworkPolicy", "chat"] = DENIED
    place.kube.refusals["ConfigMap", "chat-l40s-tuning"] = DENIED

    problems = place.sync(make_resource(device="cpu", networking={"networkPolicy": {"enabled": False}}))

    assert sorted(problems) == [
        "ConfigMap chat-l40s-tuning: denied by a webhook",
        "NetworkPolicy chat: denied by a webhook",
    ]
    assert ("delete", "Deployment", "chat-l40s") in place.kube.calls


def test_an_autoscaled_deployment_begins_with_the_autoscalers_minimum() -> None:
    place = Place()

    place.sync(make_resource(autoscaling=AUTOSCALING))

    assert place.replicas() == 3
    place.edit("Deployment", "chat-l40s", replicas=6)
    place.sync(make_resource(autoscaling=AUTOSCALING))
    assert (place.replicas(), place.kube.calls) == (6, [])


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen", "lost its labels meanwhile"])
@pytest.mark.parametrize(
    ("spec", "autoscaled"),
    [
        pytest.param({"autoscaling": AUTOSCALING}, frozenset[str](), id="autoscaling turned on"),
        pytest.param({"replicas": 5}, frozenset({"chat-l40s"}), id="an autoscaler of the user's"),
    ],
)
def test_replicas_are_handed_over_before_the_operator_lets_go(
    spec: dict[str, Any], autoscaled: frozenset[str], is_seen: bool
) -> None:
    place = Place()
    place.sync(make_resource(replicas=5))
    if not is_seen:
        place.view.children["Deployment"].objects.clear()

    place.sync(make_resource(generation=2, **spec), autoscaled)

    assert [verb for verb, kind, _ in place.kube.calls if kind == "Deployment"] == [
        f"apply as {REPLICAS_MANAGER}",
        "apply",
    ]
    assert (place.replicas(), place.kube.lowest_replicas["chat-l40s"]) == (5, 5)


def test_replicas_are_taken_back_when_autoscaling_ends() -> None:
    place = Place()
    place.sync(make_resource(autoscaling=AUTOSCALING))

    place.sync(make_resource(generation=2, replicas=2))

    assert place.replicas() == 2
    assert ("delete", "ScaledObject", "chat-l40s") in place.kube.calls


def _observed() -> Any:
    return make_observed(gpu_types=(make_gpu(),))
