"""Children that the API server refuses: found before anything is made or changed, and told of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.resources import Fields, Objects, Serving
from tests.cluster.simulated_nodes import SimulatedNodes, on_node

pytestmark = pytest.mark.cluster

NODE = "simulated-children"
SIMULATED: Fields = {"device": "cpu", "podTemplate": on_node(NODE)}
REPORTED_SECONDS = 90.0
QUOTA_SECONDS = 60.0  # until a quota that was dropped is no longer counted


@pytest.fixture(scope="module")
def objects(operator: object, cluster: Cluster, standing_nodes: SimulatedNodes) -> Iterator[Objects]:
    standing_nodes.add(NODE)
    with cluster.temporary_namespace("children") as name:
        yield Objects(cluster, name)


WRONG: dict[str, tuple[Fields, str]] = {
    "label": ({"labels": {"not a key!": "x"}}, 'spec.template.labels: Invalid value: "not a key!"'),
    "annotation": ({"annotations": {"not a key!": "x"}}, "spec.template.annotations: Invalid value"),
    "resource": ({"resources": {"requests": {"nonsense": 1}}}, "must be a standard resource type"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_api_server_refuses_in_a_child_is_found_before_anything_is_made(
    objects: Objects, name: str
) -> None:
    template, words = WRONG[name]
    serving = Serving.create(objects, f"wrong-{name}", SIMULATED, {"podTemplate": template})

    valid = serving.wait_reason("SpecValid", "InvalidSpec", REPORTED_SECONDS)

    assert words in valid["message"]
    assert serving.condition("Ready")["reason"] == "InvalidSpec"
    assert serving.children() == set()
    serving.edit({"podTemplate": dict.fromkeys(template)})
    serving.wait_ready()
    assert serving.condition("SpecValid")["status"] == "True"
    serving.delete()


def test_an_edit_that_the_api_server_refuses_changes_nothing_of_what_runs(objects: Objects) -> None:
    serving = Serving.create(objects, "edited", SIMULATED)
    serving.wait_ready()
    before = {key: objects.get(*key)["metadata"]["resourceVersion"] for key in serving.children()}

    serving.edit(
        {
            "networking": {"port": 9000, "networkPolicy": {"enabled": False}},
            "podTemplate": {"annotations": {"not a key!": "x"}},
        }
    )

    valid = serving.wait_reason("SpecValid", "InvalidSpec", REPORTED_SECONDS)
    assert "spec.template.annotations" in valid["message"]
    assert serving.condition("Ready")["status"] == "True"
    assert {key: objects.get(*key)["metadata"]["resourceVersion"] for key in serving.children()} == before
    serving.edit({"podTemplate": {"annotations": None}})
    serving.wait_ready()
    assert ("NetworkPolicy", "edited") not in serving.children()
    serving.delete()


def test_a_quota_is_no_fault_of_the_spec(cluster: Cluster, objects: Objects) -> None:
    with cluster.temporary_namespace("quota") as namespace:
        poor = Objects(cluster, namespace)
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
        cluster.apply(quota | {"spec": {"hard": {"count/services": "0"}}}, namespace)
        cluster.wait_for("the quota counts", lambda: has_status(cluster, namespace))
        serving = Serving.create(poor, "poor", SIMULATED)

        ready = serving.wait_reason("Ready", "ApplyFailed", REPORTED_SECONDS)

        assert "exceeded quota: none" in ready["message"]
        assert serving.condition("SpecValid")["status"] == "True"
        assert serving.children() == set()
        cluster.kubectl("delete", "resourcequota", "none", "-n", namespace)
        serving.wait_ready(QUOTA_SECONDS)


def has_status(cluster: Cluster, namespace: str) -> bool:
    live = cluster.get("resourcequota", "none", namespace)
    return live is not None and "hard" in live.get("status", {})
