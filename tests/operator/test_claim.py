"""Operators whose namespaces overlap: one holds a resource, the others wait for the end of its Lease."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.heartbeat import Heartbeat
from dllm_operator.cluster.kinds import RESOURCE
from dllm_operator.cluster.kube import KubeError
from dllm_operator.cluster.observe import Manifest
from dllm_operator.process.reconciler import OWNER_SECONDS, Reconciler

from tests.operator.objects import (
    DEFAULTS,
    NAMESPACE,
    FakeKube,
    make_body,
    make_claims,
    make_planner,
    make_rollouts,
)
from tests.operator.test_reconciler import Counts

KEY = (NAMESPACE, "chat")
START = datetime(2026, 1, 1, tzinfo=UTC)
MINE, OTHERS = "dllm-system/dllm-operator", "other/dllm-b"


class Operators:
    """Two releases over one API server, each with a view of its own, and their clock."""

    def __init__(self, manager: str | None = None) -> None:
        self.kube, self.seconds = FakeKube(), 0.0
        self.counts = Counts()
        body = make_body(device="cpu") | ({"status": {"managedBy": manager}} if manager else {})
        body["metadata"]["resourceVersion"] = self.kube.next_version()
        self.kube.store(body)
        self.views = {MINE: ClusterView(), OTHERS: ClusterView()}
        self.reconcilers = {name: self._reconciler(name) for name in self.views}
        self.see()

    def _reconciler(self, manager: str) -> Reconciler:
        view = self.views[manager]
        claims = make_claims(self.kube, view, manager, now=self.now, clock=lambda: self.seconds)
        planner = make_planner(self.kube, view)
        return Reconciler(
            self.kube, view, planner, DEFAULTS, claims, manager, make_rollouts(view), self.now, self.counts
        )  # type: ignore[arg-type]

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def see(self) -> None:
        """What the watches bring."""
        for view in self.views.values():
            view.resources.put(self.kube.objects["DLLMDeployment", "chat"])

    def renew(self, name: str = "dllm-b") -> None:
        self.kube.store(
            {
                "kind": "Lease",
                "metadata": {"name": name, "resourceVersion": self.kube.next_version()},
                "spec": {"renewTime": self.now().isoformat(), "leaseDurationSeconds": 15},
            }
        )

    def reconcile(self, manager: str = MINE) -> float | None:
        self.kube.calls.clear()
        self.kube.bodies.clear()
        return asyncio.run(self.reconcilers[manager].reconcile(KEY))

    def manager(self) -> str | None:
        found: str | None = self.kube.objects["DLLMDeployment", "chat"].get("status", {}).get("managedBy")
        return found


def test_a_resource_is_claimed_before_anything_is_made_of_it() -> None:
    operators = Operators()

    operators.reconcile()

    assert operators.kube.calls[0] == ("apply as dllm-operator-status", "DLLMDeployment", "chat")
    assert operators.kube.bodies[0]["status"] == {"managedBy": MINE}
    assert operators.manager() == MINE


def test_of_two_that_claim_at_the_same_time_one_writes() -> None:
    operators = Operators()
    operators.renew("dllm-operator")

    assert operators.reconcile(MINE) is None
    assert operators.reconcile(OTHERS) == OWNER_SECONDS  # its view still shows nobody's

    assert operators.manager() == MINE
    assert {kind for _, kind, _ in operators.kube.calls} == {"DLLMDeployment", "Event"}
    assert operators.kube.objects["DLLMDeployment", "chat"]["status"]["conditions"]


def test_a_resource_of_a_live_operator_is_left_alone_and_that_is_told_once_a_generation() -> None:
    operators = Operators(OTHERS)
    operators.renew()

    assert operators.reconcile() == OWNER_SECONDS
    [event] = operators.kube.bodies
    assert (event["kind"], event["type"], event["reason"]) == ("Event", "Warning", "ManagedByAnother")
    assert OTHERS in event["message"]
    assert operators.counts.left_resources == 1

    assert operators.reconcile() == OWNER_SECONDS
    assert operators.kube.calls == []


@pytest.mark.parametrize("is_renewed", [True, False], ids=["renewed", "silent"])
def test_a_lease_that_is_not_renewed_is_taken_over_after_the_margin(is_renewed: bool) -> None:
    operators = Operators(OTHERS)
    operators.renew()
    operators.reconcile()

    for _ in range(28):
        operators.seconds += 5
        if is_renewed:
            operators.renew()
        operators.reconcile()

    assert operators.manager() == (OTHERS if is_renewed else MINE)
    assert operators.counts.left_resources == (1 if is_renewed else 0)


@pytest.mark.parametrize(("seconds", "manager"), [(29.0, OTHERS), (31.0, MINE)])
def test_a_lease_that_is_gone_is_watched_for_half_a_minute(seconds: float, manager: str) -> None:
    operators = Operators(OTHERS)
    operators.reconcile()

    operators.seconds += seconds
    operators.reconcile()

    assert operators.manager() == manager


def test_a_lease_that_may_not_be_read_is_alive() -> None:
    operators = Operators(OTHERS)

    async def refuse(*_: object) -> Manifest:
        raise KubeError(403, "Forbidden", "leases")

    operators.kube.get = refuse  # type: ignore[method-assign]
    operators.seconds += 86400
    assert operators.reconcile() == OWNER_SECONDS
    operators.seconds += 86400
    assert operators.reconcile() == OWNER_SECONDS


def test_a_clock_that_is_far_ahead_takes_nothing_from_an_operator_that_renews() -> None:
    operators = Operators(OTHERS)
    operators.renew()
    operators.seconds += 3600  # by this clock the Lease ended long ago
    operators.reconcile()

    assert operators.manager() == OTHERS


def test_an_operator_that_lost_a_resource_stops_writing_to_it() -> None:
    operators = Operators()
    operators.reconcile()
    live = operators.kube.objects["DLLMDeployment", "chat"]
    metadata = live["metadata"] | {"resourceVersion": operators.kube.next_version()}
    operators.kube.store(live | {"metadata": metadata, "status": live["status"] | {"managedBy": OTHERS}})
    operators.renew()
    operators.see()

    operators.reconcile()

    assert {kind for _, kind, _ in operators.kube.calls} == {"Event"}
    assert operators.manager() == OTHERS


def test_a_resource_that_is_deleted_while_it_is_claimed_is_no_error() -> None:
    operators = Operators()
    operators.kube.refusals[RESOURCE.kind, "chat"] = KubeError(404, "NotFound", "gone")
    operators.kube.objects.clear()

    assert operators.reconcile() is None


@pytest.mark.parametrize("spec", [{}, {"renewTime": "soon"}, {"renewTime": "2026-01-01T00:00:00Z"}])
def test_a_lease_that_says_no_end_counts_by_its_version_alone(spec: dict[str, str]) -> None:
    beat = Heartbeat("7", since=0.0, looked_at=0.0, over_at=None)

    assert beat.is_alive(29.0, START, timedelta(hours=1))
    assert not beat.is_alive(31.0, START, timedelta(hours=1))
