from __future__ import annotations

import pytest
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.kinds import CHILDREN
from dllm_operator.cluster.observe import Manifest

from tests.operator.objects import NAMESPACE, make_deployment, make_node_body, make_resource

DEFINITION = "podmonitors.monitoring.coreos.com"


def make_definition(**conditions: str) -> Manifest:
    said = [{"type": kind, "status": status} for kind, status in conditions.items()]
    return {"metadata": {"name": DEFINITION}, "status": {"conditions": said}}


def make_node(**conditions: str) -> Manifest:
    said = [{"type": kind, "status": status} for kind, status in conditions.items()]
    body = make_node_body()
    return body | {"status": body["status"] | {"conditions": said}}


@pytest.mark.parametrize(
    ("conditions", "is_there"),
    [
        pytest.param({"NamesAccepted": "True", "Established": "True"}, True, id="established"),
        pytest.param({"NamesAccepted": "True", "Established": "False"}, False, id="names accepted alone"),
        pytest.param({}, False, id="just made"),
    ],
)
def test_a_definition_counts_when_the_api_server_serves_it(
    conditions: dict[str, str], is_there: bool
) -> None:
    view = ClusterView()

    assert view.put_definition(make_definition(**conditions)) is is_there
    assert bool(view.observe(make_resource()).integrations) is is_there


@pytest.mark.parametrize(
    ("conditions", "is_ready"),
    [
        pytest.param({"MemoryPressure": "True", "Ready": "True"}, True, id="under pressure"),
        pytest.param({"MemoryPressure": "True", "Ready": "Unknown"}, False, id="silent"),
        pytest.param({"MemoryPressure": "True"}, False, id="says nothing of readiness"),
    ],
)
def test_a_node_is_ready_by_that_condition_alone(conditions: dict[str, str], is_ready: bool) -> None:
    now = [0.0]
    view = ClusterView(clock=lambda: now[0])
    view.put_node(make_node(**conditions))
    now[0] = 1e6

    assert (view.lost_nodes() == frozenset()) is is_ready


def test_a_node_that_turns_silent_is_news_once_and_so_is_its_return() -> None:
    view = ClusterView()
    news = [
        view.put_node(make_node(Ready=status)) for status in ("True", "Unknown", "Unknown", "True", "True")
    ]

    assert news == [True, True, False, True, False]


@pytest.mark.parametrize("kind", [kind.kind for kind in CHILDREN])
def test_an_object_without_an_owner_can_come_go_and_come_anew(kind: str) -> None:
    table = ClusterView().children[kind]
    metadata = {"name": "by-hand", "namespace": NAMESPACE}
    bodies = [{"metadata": metadata | {"uid": uid, "resourceVersion": uid}} for uid in ("1", "2")]

    assert [table.put(body) for body in bodies] == [True, True]
    table.drop(bodies[0])
    assert table.versions() == {"2": 2}
    table.drop(bodies[1])
    table.drop(bodies[1])
    assert (table.objects, table.by_owner) == ({}, {})


def test_nothing_is_kept_of_an_owner_without_children() -> None:
    table = ClusterView().children["Deployment"]
    bodies = [make_deployment(pool) for pool in ("l4", "l40s")]
    for body in bodies:
        table.put(body)
    for body in bodies:
        table.drop(body)

    assert table.by_owner == {}


def test_a_definition_whose_conditions_are_null_is_not_served_yet() -> None:
    view = ClusterView()

    assert not view.put_definition(make_definition() | {"status": {"conditions": None}})
    assert not view.observe(make_resource()).integrations
