from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.kinds import BY_KIND
from dllm_operator.cluster.kube import Kind, KubeError
from dllm_operator.cluster.labels import account_name
from dllm_operator.cluster.observe import Integration, Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.plan import plan
from dllm_operator.render import render
from dllm_operator.writing.apply import REPLICAS_MANAGER, Applier
from dllm_operator.writing.refusal import is_about_the_spec

from tests.operator.objects import (
    DEFAULTS,
    NAMESPACE,
    FakeKube,
    make_gpu,
    make_observed,
    make_pod,
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
INVALID = KubeError(422, "Invalid", "limits: must be at least requests")


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
        self.kube.tries.clear()
        self.outcome = asyncio.run(self.applier.sync(resource, manifests, planned.pools))
        return list(self.outcome.all_problems)

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
        "Service chat exists and does not belong to this DLLMDeployment: delete or rename"
    )
    assert place.outcome.in_the_way == (problem,)
    assert place.kube.objects == {("Service", "chat"): body}


def test_an_account_of_that_name_that_comes_meanwhile_is_not_joined() -> None:
    place, resource = Place(), make_resource()
    metadata = {"name": "chat-dllm", "namespace": NAMESPACE, "uid": "x", "resourceVersion": "1"}
    foreign = {"kind": "ServiceAccount", "metadata": metadata}

    async def get(kind: Kind, namespace: str | None, name: str) -> None:
        """Looks just before somebody makes it."""

    place.kube.get = get  # type: ignore[assignment]
    place.kube.store(foreign)

    assert place.sync(resource) == ["ServiceAccount chat-dllm: chat-dllm already exists"]
    assert place.kube.objects["ServiceAccount", "chat-dllm"] is foreign
    assert ("Deployment", "chat-l40s") not in place.kube.objects


def test_a_child_is_changed_by_its_uid_so_that_none_of_its_name_is_taken_over() -> None:
    place = Place()
    place.sync(make_resource())
    place.kube.bodies.clear()

    place.sync(make_resource(generation=2, image="example.local/other:1"))

    [body] = place.kube.bodies
    assert body["metadata"]["uid"] == "uid-Deployment-chat-l40s"


def with_account(pod: Manifest, name: str, version: str) -> Manifest:
    pod["spec"]["serviceAccountName"] = name
    pod["metadata"]["resourceVersion"] = version
    return pod


def test_an_account_that_pods_still_use_goes_after_them() -> None:
    place, resource = Place(), make_resource()
    place.sync(resource)
    former = only(render_resource(resource, _observed()), "ServiceAccount")
    identity = {"name": "chat", "uid": "former", "resourceVersion": "1"}
    place.see(former | {"metadata": former["metadata"] | identity})
    place.view.pods.put(with_account(make_pod(), "chat", "1"))

    place.sync(resource)
    assert place.kube.calls == []

    place.view.pods.put(with_account(make_pod(), "chat-dllm", "2"))
    place.sync(resource)
    assert place.kube.calls == [("delete", "ServiceAccount", "chat")]


@pytest.mark.parametrize(("is_owned", "runs_as"), [(True, "chat"), (False, "chat-dllm")])
def test_a_template_of_before_keeps_its_account_only_if_that_is_the_resources(
    is_owned: bool, runs_as: str
) -> None:
    place, resource = Place(), make_resource()
    place.sync(resource)
    manifests = list(render_resource(resource, _observed()))
    former = only(tuple(manifests), "ServiceAccount")
    owners = former["metadata"]["ownerReferences"] if is_owned else []
    identity = {"name": "chat", "uid": "former", "resourceVersion": "1", "ownerReferences": owners}
    place.see(former | {"metadata": former["metadata"] | identity})
    deployment = only(tuple(manifests), "Deployment")
    accounts = {"serviceAccount": "chat", "serviceAccountName": "chat"}
    deployment["spec"]["template"]["spec"] |= accounts

    asyncio.run(place.applier.sync(resource, manifests, ()))

    pod = place.kube.objects["Deployment", "chat-l40s"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == runs_as
    assert pod.get("serviceAccount", runs_as) == runs_as


def test_accounts_of_two_resources_never_have_one_name() -> None:
    names = ("a", "a-dllm", "a-dllm-dllm")

    assert len({account_name(name) for name in names}) == len(names)
    assert account_name("a" * 40).endswith("-dllm")


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


def test_nothing_is_changed_where_the_api_server_would_refuse_a_child() -> None:
    place, resource = Place(), make_resource()
    place.kube.refusals["Deployment", "chat-l40s"] = INVALID

    assert place.sync(resource) == ["Deployment chat-l40s: limits: must be at least requests"]
    assert place.outcome.invalid == tuple(place.outcome.all_problems)
    assert place.kube.calls == []

    place.kube.refusals.clear()
    assert place.sync(resource) == []
    assert ("apply", "Deployment", "chat-l40s") in place.kube.calls


def test_one_write_alone_needs_no_dry_run_and_neither_does_none() -> None:
    place = Place()
    place.sync(make_resource())

    place.sync(make_resource(generation=2, image="example.local/other:1"))
    assert (len(place.kube.calls), place.kube.tries) == (1, [])
    place.sync(make_resource(generation=2, image="example.local/other:1"))
    assert (place.kube.calls, place.kube.tries) == ([], [])


def test_a_refused_write_stops_what_would_follow_it() -> None:
    place = Place()
    place.sync(make_resource())
    place.kube.refusals["Deployment", "chat-l40s"] = INVALID

    edited = {"image": "example.local/other:1", "networking": {"networkPolicy": {"enabled": False}}}
    assert place.sync(make_resource(generation=2, **edited)) == [
        "Deployment chat-l40s: limits: must be at least requests"
    ]
    assert ("NetworkPolicy", "chat") in place.kube.objects


def test_a_webhook_that_knows_no_dry_run_is_asked_by_the_write_itself() -> None:
    place, resource = Place(), make_resource()
    apply = place.kube.apply

    async def without_dry_run(kind: Kind, manifest: Manifest, **options: Any) -> Manifest:
        if options.get("is_dry_run") and kind.kind == "Service":
            raise KubeError(400, "BadRequest", 'admission webhook "w.example" does not support dry run')
        return await apply(kind, manifest, **options)

    place.kube.apply = without_dry_run  # type: ignore[method-assign]

    assert place.sync(resource) == []
    assert ("Deployment", "chat-l40s") in place.kube.objects


@pytest.mark.parametrize(
    ("error", "is_about_it"),
    [
        (INVALID, True),
        (KubeError(400, "BadRequest", "unknown field"), True),
        (KubeError(500, "", "failed to create typed patch object (x): field not declared in schema"), True),
        (KubeError(403, "Forbidden", 'admission webhook "w" denied the request: no'), True),
        (
            KubeError(422, "Invalid", "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"),
            True,
        ),
        (KubeError(400, "BadRequest", 'admission webhook "w" does not support dry run'), False),
        (KubeError(403, "Forbidden", 'services "chat" is forbidden: exceeded quota: q'), False),
        (KubeError(403, "Forbidden", 'User "u" cannot patch resource "services"'), False),
        (KubeError(404, "NotFound", "namespaces not found"), False),
        (KubeError(409, "Conflict", "the object has been modified"), False),
        (KubeError(429, "TooManyRequests", "try again"), False),
        (KubeError(500, "InternalError", "etcdserver: request timed out"), False),
        (KubeError(503, "", "unavailable"), False),
    ],
)
def test_a_refusal_is_about_the_spec_or_about_the_moment(error: KubeError, is_about_it: bool) -> None:
    assert is_about_the_spec(error) is is_about_it


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
