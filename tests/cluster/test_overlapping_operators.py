"""Two releases whose namespaces overlap: one looks after a resource, the other keeps its hands off."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from dllm_operator.api.v1alpha1 import KIND

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import RELEASE_NAMESPACE, Images, install_operator, remove_operator
from tests.cluster.operator_pods import SERVICE_ACCOUNT, wait_until_quiet, writes_since
from tests.cluster.resources import Fields, Objects, Serving, eventually
from tests.cluster.simulated_nodes import SimulatedNodes, on_node

pytestmark = pytest.mark.cluster

NODE = "simulated-overlap"
SPEC: Fields = {"device": "cpu", "podTemplate": on_node(NODE)}
FIRST = f"{RELEASE_NAMESPACE}/dllm-operator"
OTHER_NAMESPACE = "dllm-other"
SECOND = f"{OTHER_NAMESPACE}/other-dllm-operator"
SECOND_ACCOUNT = f"system:serviceaccount:{OTHER_NAMESPACE}:other-dllm-operator"
MARGIN_SECONDS = 5
TAKEOVER_SECONDS = 90.0
QUIET_SECONDS = 15.0


@pytest.fixture(autouse=True)
def node(nodes: SimulatedNodes) -> None:
    nodes.add(NODE)


@pytest.fixture
def second(cluster: Cluster, operator: Images) -> Iterator[None]:
    """Another release with another default of the server's image; both watch all namespaces."""
    flags = {
        "operator.image": operator.operator,
        "server.image": "example.local/another-server:1",
        "crds.enabled": "false",
        "operator.replicas": "1",
        "operator.takeoverSeconds": str(MARGIN_SECONDS),
    }
    chosen = [part for name, value in flags.items() for part in ("--set", f"{name}={value}")]
    try:
        cluster.helm(
            "install", "other", "charts/dllm-operator", "-n", OTHER_NAMESPACE, "--create-namespace", *chosen
        )
        yield
    finally:
        cluster.helm("uninstall", "other", "-n", OTHER_NAMESPACE, "--ignore-not-found", "--wait")
        cluster.kubectl("delete", "namespace", OTHER_NAMESPACE, "--wait=false")


def manager(serving: Serving) -> str | None:
    found: str | None = serving.status().get("managedBy")
    return found


def image(serving: Serving) -> str:
    found: str = serving.deployment()["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


def check(is_so: bool, found: object = None) -> None:
    """For `eventually`."""
    assert is_so, found


def test_one_of_two_operators_writes_and_the_other_takes_over_when_it_is_gone(
    cluster: Cluster, operator: Images, objects: Objects, second: None
) -> None:
    start = datetime.now(UTC)
    servings = [Serving.create(objects, f"r{number}", SPEC) for number in range(4)]

    for serving in servings:
        serving.wait_ready(60)
    eventually(lambda: check(all(len(told(serving)) == 1 for serving in servings)), 60)
    owners = {serving.name: manager(serving) for serving in servings}
    assert set(owners.values()) <= {FIRST, SECOND}
    for serving in servings:  # by patch, as the documentation says
        objects.patch(KIND, serving.name, {"status": {"managedBy": FIRST}}, "status")
    eventually(lambda: check({image(each) for each in servings} == {operator.server}))
    for serving in servings:
        serving.edit({"replicas": 2})
        serving.wait_ready(60)

    # Nobody fights: what is left of the writes is nothing, on either side.
    quiet_from = wait_until_quiet(cluster, QUIET_SECONDS, (SERVICE_ACCOUNT, SECOND_ACCOUNT), most=6)
    assert {manager(serving) for serving in servings} == {FIRST}
    assert len(objects.list("Pod")) == 8
    assert len(writes_since(cluster, start, SECOND_ACCOUNT)) < 100
    assert writes_since(cluster, quiet_from) == writes_since(cluster, quiet_from, SECOND_ACCOUNT) == []

    pods = {pod["metadata"]["uid"] for pod in objects.list("Pod")}
    try:
        cluster.helm("uninstall", "dllm", "-n", RELEASE_NAMESPACE, "--wait")
        eventually(lambda: check({manager(each) for each in servings} == {SECOND}), TAKEOVER_SECONDS)
        for serving in servings:
            serving.edit({"replicas": 1})
            serving.wait_ready(60)
        assert {image(each) for each in servings} == {"example.local/another-server:1"}
        assert not pods & {pod["metadata"]["uid"] for each in servings for pod in each.pods()}
    finally:
        remove_operator(cluster)
        install_operator(cluster, operator)
    eventually(lambda: check(all(told(each, FIRST) for each in servings)), 60)
    assert {manager(serving) for serving in servings} == {SECOND}


def told(serving: Serving, by: str = "") -> list[str]:
    """What Events say of another operator, ``by`` one's Lease."""
    said = [event["message"] for event in serving.events("ManagedByAnother")]
    return [message for message in said if f"that of Lease {by}" in message]
