"""The loop from a door that answers over HTTP to the replicas that the reconcile writes, on a clock of its
own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.kinds import Kind
from dllm_operator.cluster.observe import Manifest
from dllm_operator.observing.scaler import LOOK_SECONDS, Scaler
from dllm_operator.process.reconciler import Reconciler

from tests.operator.objects import (
    DEFAULTS,
    MANAGER,
    NAMESPACE,
    FakeKube,
    make_body,
    make_claims,
    make_planner,
    make_pod,
    make_rollouts,
)

KEY = (NAMESPACE, "chat")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCALING = {"provider": "Builtin", "minReplicas": 0, "maxReplicas": 5, "idleSeconds": 60}
SPEC: dict[str, Any] = {"device": "cpu", "engine": {"maxNumSeqs": 4}, "autoscaling": SCALING}


@dataclass
class FakeDoor:
    """One pod of a door; ``held`` is None where it holds nothing."""

    queue: int = 0
    held: int | None = 0
    running: int = 0
    arrived: int = 0
    finished: int = 0
    status: int = 200

    def stats(self) -> str:
        sessions = self.finished + self.running
        return "\n".join(
            [
                "# pxname,svname,qcur,scur,stot,req_tot,qtime,ttime,",
                f"door,FRONTEND,,0,0,{self.arrived},,,",
                "admin,FRONTEND,,1,9,77,,,",
                f"engines,cpu-1,0,{self.running},{sessions},,1000,5000,",
                f"engines,BACKEND,{self.queue},{self.running},{sessions},{sessions},1000,5000,",
                "",
            ]
        )


class DoorKube(FakeKube):
    """With the pods of the door."""

    doors: list[Manifest]

    async def list(
        self, kind: Kind, namespace: str | None, label_selector: str | None = None
    ) -> tuple[Manifest, ...]:
        assert (kind.kind, namespace) == ("Pod", NAMESPACE)
        assert "app.kubernetes.io/name=dllm-front-door" in (label_selector or "").split(",")
        return tuple(self.doors)


class Place:
    def __init__(self, door: FakeDoor, port: int, spec: dict[str, Any]) -> None:
        self.door, self.seconds = door, 0.0
        self.kube, self.view = DoorKube(), ClusterView()
        pod = make_pod(name="door-1", is_ready=True, podIP="127.0.0.1")
        pod["spec"]["containers"] = [{"ports": [{"name": "metrics", "containerPort": port}]}]
        self.kube.doors = [pod]
        body = make_body(**spec) | {"status": {"managedBy": MANAGER}}
        body["metadata"]["resourceVersion"] = self.kube.next_version()
        self.view.resources.put(self.kube.store(body))
        self.begin()

    def begin(self) -> None:
        """An operator that has just begun to lead."""
        planner, self.woken = make_planner(self.kube, self.view), list[tuple[str, str]]()
        self.reconciler = Reconciler(
            self.kube,  # type: ignore[arg-type]
            self.view,
            planner,
            DEFAULTS,
            make_claims(self.kube, self.view),
            "op-0",
            make_rollouts(self.view),
            lambda: NOW,
        )
        self.scaler = Scaler(
            self.kube,  # type: ignore[arg-type]
            self.view,
            planner,
            self.woken.append,
            manager=MANAGER,
            clock=lambda: self.seconds,
        )

    async def look(self, times: int = 1) -> None:
        """So many ticks, each with the reconciles it asks for."""
        async with aiohttp.ClientSession() as session:
            for _ in range(times):
                self.seconds += LOOK_SECONDS
                await self.scaler.tick(session)
                for key in self.woken:
                    await self.reconcile(key)
                self.woken.clear()

    async def reconcile(self, key: tuple[str, str] = KEY) -> None:
        await self.reconciler.reconcile(key)
        for (kind, _), stored in self.kube.objects.items():
            if kind in self.view.children:
                self.view.children[kind].put(stored)
        self.view.resources.put(self.kube.objects["DLLMDeployment", "chat"])

    @property
    def replicas(self) -> int:
        return int(self.kube.objects["Deployment", "chat-cpu"]["spec"]["replicas"])

    @property
    def condition(self) -> dict[str, Any]:
        conditions = self.kube.objects["DLLMDeployment", "chat"]["status"]["conditions"]
        return next(dict(each) for each in conditions if each["type"] == "ScalingActive")


@asynccontextmanager
async def place(spec: dict[str, Any] = SPEC) -> AsyncIterator[Place]:
    door = FakeDoor()

    async def stats(_: web.Request) -> web.Response:
        return web.Response(text=door.stats(), status=door.status)

    async def held(_: web.Request) -> web.Response:
        return web.Response(status=404) if door.held is None else web.Response(text=str(door.held))

    app = web.Application()
    app.router.add_get("/stats;csv", stats)
    app.router.add_get("/held", held)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    [(_, port)] = runner.addresses
    try:
        found = Place(door, port, spec)
        await found.reconcile()
        yield found
    finally:
        await runner.cleanup()


def run(scenario: Callable[[Place], Awaitable[None]], spec: dict[str, Any] = SPEC) -> None:
    async def whole() -> None:
        async with place(spec) as found:
            await scenario(found)

    asyncio.run(whole())


def test_what_waits_wakes_as_many_pods_as_it_needs_and_all_go_when_nobody_asks() -> None:
    async def scenario(at: Place) -> None:
        assert at.replicas == 0
        await at.look(2)
        assert (at.replicas, at.condition["reason"]) == (0, "Enough")

        at.door.held, at.door.arrived = 10, 10
        await at.look(3)

        assert (at.replicas, at.condition["reason"]) == (3, "Grows")
        assert at.condition["message"].startswith("10 requests waited and 0 ran")
        at.door.held, at.door.running = 0, 10
        await at.look()
        at.door.running, at.door.finished = 0, 10
        await at.look(2)
        assert at.replicas == 3
        await at.look(14)
        assert (at.replicas, at.condition["reason"]) == (0, "Sleeps")

    run(scenario)


def test_another_leader_goes_on_from_the_pods_that_there_are() -> None:
    async def scenario(at: Place) -> None:
        at.door.held, at.door.arrived = 10, 10
        await at.look()
        assert at.replicas == 3

        at.begin()
        await at.reconcile()
        at.door.held, at.door.running = 0, 10
        await at.look(3)

        assert at.replicas == 3

    run(scenario)


def test_a_door_that_says_nothing_changes_nothing_and_is_told_of() -> None:
    async def scenario(at: Place) -> None:
        at.door.held, at.door.arrived = 10, 10
        await at.look()
        at.door.status, at.door.held, at.door.running = 500, 0, 0
        await at.look(40)

        assert at.replicas == 3
        assert (at.condition["status"], at.condition["reason"]) == ("False", "DoorSilent")
        assert "door-1: metrics answer 500" in at.condition["message"]
        at.door.status = 200
        await at.look()
        assert at.condition["status"] == "True"

    run(scenario)


def test_nothing_new_is_no_reconcile() -> None:
    async def scenario(at: Place) -> None:
        await at.look()
        written = len(at.kube.calls)
        for running in (1, 2, 3, 2, 1):
            at.door.running = running
            await at.look()
        assert at.replicas == 1
        changed = len(at.kube.calls)
        for running in (1, 2, 3, 2, 1):
            at.door.running = running
            await at.look()
        assert len(at.kube.calls) == changed > written

    run(scenario)


@pytest.mark.parametrize("fewest", [1, 2])
def test_the_bounds_hold_whatever_comes(fewest: int) -> None:
    async def scenario(at: Place) -> None:
        assert at.replicas == fewest
        at.door.queue, at.door.arrived, at.door.held = 500, 500, None
        await at.look(3)
        assert (at.replicas, at.condition["reason"]) == (5, "AtMost")
        at.door.queue = 0
        await at.look(200)
        assert at.replicas == fewest

    run(scenario, SPEC | {"autoscaling": {"provider": "Builtin", "minReplicas": fewest, "maxReplicas": 5}})
