from __future__ import annotations

from typing import Any

import pytest
from dllm_operator.cluster.cluster_view import LOST_SECONDS, REPLICA_OWNERS, ClusterView, Table
from dllm_operator.cluster.kinds import CHILDREN, INTEGRATION_CHILDREN, definition_name
from dllm_operator.cluster.observe import ChildKey, Integration, Manifest

from tests.operator.objects import NAMESPACE, make_deployment, make_node_body, make_pod, make_resource

KEY = (NAMESPACE, "chat-l40s")
OWNER = (NAMESPACE, "chat")


def make_table(*bodies: Manifest) -> Table:
    table = ClusterView().children["Deployment"]
    for body in bodies:
        table.put(body)
    return table


def at(version: int, uid: str = "uid-1", **metadata: Any) -> Manifest:
    return make_deployment(resourceVersion=str(version), uid=uid, **metadata)


def make_autoscaler(name: str = "hpa", target: str = "chat-l40s", kind: str = "Deployment") -> Manifest:
    return {
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"scaleTargetRef": {"kind": kind, "name": target}},
    }


def make_definition(name: str, status: str = "True") -> Manifest:
    return {
        "metadata": {"name": name},
        "status": {"conditions": [{"type": "Established", "status": status}]},
    }


@pytest.mark.parametrize(
    ("known", "came", "is_news"),
    [
        pytest.param(9, 10, True, id="newer across a digit"),
        pytest.param(10, 9, False, id="older across a digit"),
        pytest.param(9, 9, False, id="the same"),
    ],
)
def test_an_older_version_never_replaces_a_newer_one(known: int, came: int, is_news: bool) -> None:
    table = make_table(at(known))

    assert table.put(at(came)) is is_news
    assert table.versions() == {"uid-1": max(known, came)}


def test_an_object_made_anew_under_its_name_replaces_the_former_one() -> None:
    table = make_table(at(50, uid="old"))

    assert table.put(at(60, uid="new"))
    assert table.versions() == {"new": 60}
    assert table.owned(OWNER).keys() == {"chat-l40s"}


def test_the_end_of_a_former_object_leaves_the_new_one() -> None:
    table = make_table(at(50, uid="old"), at(60, uid="new"))

    table.drop(at(55, uid="old"))

    assert table.versions() == {"new": 60}


def test_a_deleted_object_is_forgotten_also_by_its_owner() -> None:
    table = make_table(at(50))

    table.drop(at(51))

    assert (table.objects, table.owned(OWNER), table.by_owner) == ({}, {}, {})


def test_an_object_that_is_relabelled_moves_to_its_new_owner() -> None:
    table = make_table(at(1))

    table.put(at(2, labels={"app.kubernetes.io/instance": "other"}))
    assert table.owned(OWNER) == {}
    assert table.owned((NAMESPACE, "other")).keys() == {"chat-l40s"}

    table.put(at(3, labels={}))
    assert table.by_owner == {}


def test_an_older_version_changes_no_owner_either() -> None:
    table = make_table(at(5))

    table.put(at(4, labels={}))

    assert table.owned(OWNER).keys() == {"chat-l40s"}


def test_only_who_applied_the_replicas_is_kept_of_the_managed_fields() -> None:
    def entry(manager: str, operation: str, field: str) -> Manifest:
        return {"manager": manager, "operation": operation, "fieldsV1": {"f:spec": {field: {}}}}

    fields = [
        entry("dllm-operator", "Apply", "f:replicas"),
        entry("kube-controller-manager", "Update", "f:replicas"),
        entry("somebody", "Apply", "f:paused"),
    ]
    table = make_table(at(1, managedFields=fields))

    assert table.objects[KEY][REPLICA_OWNERS] == ["dllm-operator"]
    assert "managedFields" not in table.objects[KEY]["metadata"]


def test_of_a_pods_spec_only_what_decides_about_its_place_and_what_it_mounts_is_kept() -> None:
    view, pod = ClusterView(), make_pod()
    placed, asked = {"nodeSelector": {"zone": "a"}, "tolerations": []}, {"limits": {"cpu": "1"}}
    keys = {"name": "keys", "secret": {"secretName": "api-keys"}}
    pod["spec"] |= placed | {
        "containers": [{"name": "engine", "env": [], "resources": asked}],
        "volumes": [keys, {"name": "tmp", "emptyDir": {}}],
    }

    view.pods.put(pod)

    [kept] = view.pods.objects.values()
    assert (kept["spec"], kept["status"]) == (
        placed | {"nodeName": "node-a", "volumes": [keys], "containers": [{"resources": asked}]},
        pod["status"],
    )


def test_a_heartbeat_of_a_node_is_no_news() -> None:
    view, node = ClusterView(), make_node_body(product="NVIDIA-L40S")

    assert view.put_node(node)
    node["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-01-01T00:00:00Z"
    node["metadata"]["labels"]["zone"] = "a"
    assert not view.put_node(node)


def test_new_gpus_of_a_node_are_news_and_change_the_types() -> None:
    view = ClusterView()
    view.put_node(make_node_body(product="NVIDIA-L4"))
    assert [gpu.product for gpu in view.gpu_types()] == ["NVIDIA-L4"]

    assert view.put_node(make_node_body(product="NVIDIA-L40S"))
    assert [gpu.product for gpu in view.gpu_types()] == ["NVIDIA-L40S"]

    view.drop_node("node-a")
    assert view.gpu_types() == ()


def test_a_node_is_lost_when_it_has_not_been_ready_for_a_while() -> None:
    now = [0.0]
    view = ClusterView(clock=lambda: now[0])
    view.put_node(make_node_body())

    assert view.put_node(make_node_body(is_ready=False))
    now[0] = LOST_SECONDS - 0.1
    assert not view.put_node(make_node_body(is_ready=False))
    assert view.lost_nodes() == frozenset()
    now[0] = LOST_SECONDS
    assert view.lost_nodes() == {"node-a"}

    assert view.put_node(make_node_body())
    assert view.lost_nodes() == frozenset()


def test_a_lost_node_that_is_removed_is_no_longer_lost() -> None:
    now = [0.0]
    view = ClusterView(clock=lambda: now[0])
    view.put_node(make_node_body(is_ready=False))
    now[0] = LOST_SECONDS

    view.drop_node("node-a")

    assert view.lost_nodes() == frozenset()


def test_an_autoscaler_is_news_when_its_target_changes() -> None:
    view = ClusterView()

    assert view.put_autoscaler(make_autoscaler())
    assert not view.put_autoscaler(make_autoscaler())
    assert view.observe(make_resource()).autoscaled == {"chat-l40s"}
    assert view.put_autoscaler(make_autoscaler(target="chat-l4"))
    assert view.observe(make_resource()).autoscaled == {"chat-l4"}

    view.drop_autoscaler(make_autoscaler())
    assert view.observe(make_resource()).autoscaled == frozenset()


def test_an_autoscaler_elsewhere_or_of_another_kind_is_not_of_this_resource() -> None:
    view, elsewhere = ClusterView(), make_autoscaler()
    elsewhere["metadata"]["namespace"] = "team-b"
    view.put_autoscaler(elsewhere)
    view.put_autoscaler(make_autoscaler("sets", "chat-l40s", "StatefulSet"))

    assert "chat-l40s" not in view.observe(make_resource()).autoscaled


@pytest.mark.parametrize("kind", INTEGRATION_CHILDREN, ids=lambda kind: kind.kind)
def test_an_integration_is_there_while_its_definition_is_established(kind: Any) -> None:
    view, name = ClusterView(), definition_name(kind)

    assert not view.put_definition(make_definition(name, "False"))
    assert view.put_definition(make_definition(name))
    assert not view.put_definition(make_definition(name))
    assert view.observe(make_resource()).integrations == {Integration(kind.kind)}
    assert view.put_definition(make_definition(name, "False"))
    assert view.observe(make_resource()).integrations == frozenset()


def test_a_resource_sees_its_own_children_and_pods_and_its_former_pools() -> None:
    view = ClusterView()
    foreign = make_deployment("l4", labels={"app.kubernetes.io/instance": "other"})
    for body in (make_deployment(), foreign):
        view.children["Deployment"].put(body)
    view.pods.put(make_pod())
    view.pods.put(make_pod(name="other-1", metadata={"labels": {"app.kubernetes.io/instance": "other"}}))

    seen = view.observe(make_resource(status={"pools": [{"name": "l40s"}, {"name": "l4"}]}))

    assert seen.children.keys() == {ChildKey("Deployment", "chat-l40s")}
    assert seen.deployments().keys() == {"chat-l40s"}
    assert [pod["metadata"]["name"] for pod in seen.pods] == ["chat-l40s-1"]
    assert seen.pool_order == ("l40s", "l4")


def test_the_view_has_a_table_for_every_kind_of_child() -> None:
    assert ClusterView().children.keys() == {kind.kind for kind in CHILDREN}
