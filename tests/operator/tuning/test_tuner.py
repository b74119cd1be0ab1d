"""The loop from pods that answer over HTTP to what the reconcile writes, on a clock of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.observe import Manifest
from dllm_operator.observing.tuner import MOST_BETWEEN_SCRAPES, Tuner, TuningObserver
from dllm_operator.process.reconciler import Reconciler
from dllm_operator.tuning.reading import merged, parse_reading
from engine_metrics import MIB, make_snapshot, make_window, metrics_text

from tests.operator.objects import (
    DEFAULTS,
    MANAGER,
    NAMESPACE,
    FakeKube,
    make_body,
    make_claims,
    make_container,
    make_node_body,
    make_planner,
    make_pod,
    make_rollouts,
)

KEY = (NAMESPACE, "chat")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIVE = {"max_num_batched_tokens": 1024, "max_num_seqs": 16, "max_num_logits": 256, "refresh_share": 0.5}
ENGINE = {"maxNumBatchedTokens": 1024, "maxNumSeqs": 16, "maxNumLogits": 256, "kvPoolBytes": "200MiB"}
TUNING = {"mode": "Auto", "intervalSeconds": 60, "targetMemoryUtilization": 0.95}


class Counts(TuningObserver):
    def __init__(self) -> None:
        self.looks: list[str] = []
        self.changes: list[str] = []

    def looked(self, reason: str, silent: int) -> None:
        self.looks.append(reason)

    def changed(self, reason: str) -> None:
        self.changes.append(reason)


class Place:
    """One CPU pod whose engine answers ``text`` on a real port, an API server that takes notes, a clock."""

    def __init__(self, port: int, tuning: dict[str, Any] = TUNING, **spec: Any) -> None:
        self.port = port
        self.kube, self.view, self.seconds, self.text = FakeKube(), ClusterView(), 0.0, ""
        spec = {"engine": ENGINE, "tuning": tuning} | spec
        body = make_body(**({"device": "cpu"} | spec)) | {"status": {"managedBy": MANAGER}}
        body["metadata"]["resourceVersion"] = self.kube.next_version()
        self.view.resources.put(self.kube.store(body))
        self.meanwhile: Callable[[], None] = lambda: None  # what happens while the pod answers
        self.begin()

    def edit(self, **spec: Any) -> None:
        """By a user, over the spec as it is."""
        live = self.kube.objects["DLLMDeployment", "chat"]
        metadata = live["metadata"] | {"generation": 2, "resourceVersion": self.kube.next_version()}
        self.view.resources.put(self.kube.store(live | {"spec": live["spec"] | spec, "metadata": metadata}))

    def begin(self) -> None:
        """An operator that has just begun to lead."""
        self.planner, self.counts = make_planner(self.kube, self.view), Counts()
        self.woken: list[tuple[str, str]] = []
        self.rollouts = make_rollouts(self.view)
        self.reconciler = Reconciler(
            self.kube,  # type: ignore[arg-type]
            self.view,
            self.planner,
            DEFAULTS,
            make_claims(self.kube, self.view),
            "op-0",
            self.rollouts,
            lambda: NOW,
        )
        self.tuner = Tuner(
            self.view,
            self.planner,
            self.planner._profiles,
            self.woken.append,
            self.rollouts,
            manager=MANAGER,
            now=lambda: NOW,
            observe=self.counts,
            clock=lambda: self.seconds,
        )

    def show_pod(
        self,
        *containers: Manifest,
        is_ready: bool = True,
        port_name: str = "metrics",
        resources: Manifest | None = None,
    ) -> None:
        pod = make_pod(*containers, name="chat-cpu-1", pool="cpu", is_ready=is_ready, podIP="127.0.0.1")
        ports = [{"name": port_name, "containerPort": self.port}]
        pod["spec"]["containers"] = [{"ports": ports, "resources": resources or {}}]
        pod["metadata"]["resourceVersion"] = self.kube.next_version()
        self.view.pods.put(pod)

    async def look(self, seconds: float = 60.0) -> None:
        """A tick after so many seconds, and the reconciles it asks for."""
        self.seconds += seconds
        async with aiohttp.ClientSession() as session:
            await self.tuner.tick(session, asyncio.Semaphore(4))
        for key in self.woken:
            await self.reconciler.reconcile(key)
        self.woken.clear()

    def answer(self, *numbers: int, generation: int = 0, activations: int = 40 * MIB, **engine: Any) -> None:
        windows = (make_window(n, generation=generation, activations=activations) for n in numbers)
        engine = {"live": LIVE, "tuning_generation": generation} | engine
        self.text = metrics_text(make_snapshot(*windows, **engine))

    def status(self) -> Manifest:
        found: Manifest = self.kube.objects["DLLMDeployment", "chat"].get("status", {})
        return found

    def tuning(self) -> Manifest:
        [pool] = self.status()["pools"]
        found: Manifest = pool["tuning"]
        return found

    def file(self) -> dict[str, Any]:
        """What engines are told."""
        document = json.loads(self.kube.objects["ConfigMap", "chat-cpu-tuning"]["data"]["tuning.json"])
        return {name: value for name, value in document.items() if name != "checksum"}

    def template(self) -> str:
        return json.dumps(self.kube.objects["Deployment", "chat-cpu"]["spec"]["template"], sort_keys=True)

    def condition(self) -> dict[str, str]:
        return {c["type"]: c for c in self.status()["conditions"]}["TuningConverged"]


def drive(story: Callable[[Place], Any], **fields: Any) -> Place:
    """``story`` on a place whose pod listens; the first reconcile is done."""

    async def run() -> Place:
        places: list[Place] = []

        async def metrics(_: web.Request) -> web.Response:
            places[0].meanwhile()
            return web.Response(text=places[0].text)

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        try:
            place = Place(port, **fields)
            places.append(place)
            await place.reconciler.reconcile(KEY)
            place.show_pod()
            await story(place)
            return place
        finally:
            await runner.cleanup()

    return asyncio.run(run())


async def cut(place: Place) -> None:
    """A first look as a baseline, then a peak above target."""
    place.answer(0)
    await place.look()
    place.answer(0, 1, activations=120 * MIB)
    await place.look()


def test_a_peak_above_target_reaches_the_engines_without_a_restart() -> None:
    before: list[str] = []

    async def story(place: Place) -> None:
        before.append(place.template())
        await cut(place)

    place = drive(story)

    assert place.file()["generation"] == 1
    assert place.file()["max_num_batched_tokens"] < 1024
    assert [place.template()] == before
    assert place.tuning()["settings"]["maxNumBatchedTokens"] == 1024  # which is what still runs
    assert place.tuning()["lastChange"]["reason"] == "PeakAboveTarget"
    assert place.status()["tuned"] == "cpu=1024"
    assert place.condition()["reason"] == "Tuning"
    assert place.counts.changes == ["PeakAboveTarget"]
    [event] = [e for e in place.kube.bodies if e["kind"] == "Event" and e["reason"] == "PeakAboveTarget"]
    assert event["type"] == "Normal"


def test_a_pod_of_an_older_version_is_read_on_the_apis_port() -> None:
    async def story(place: Place) -> None:
        place.show_pod(port_name="http")
        await cut(place)

    assert drive(story).counts.changes == ["PeakAboveTarget"]


def test_a_resource_of_another_operator_is_not_tuned() -> None:
    async def story(place: Place) -> None:
        live = place.kube.objects["DLLMDeployment", "chat"]
        metadata = live["metadata"] | {"resourceVersion": place.kube.next_version()}
        status = live["status"] | {"managedBy": "other/dllm-b"}
        place.view.resources.put(place.kube.store(live | {"metadata": metadata, "status": status}))
        await cut(place)

    place = drive(story)

    assert (place.counts.looks, place.counts.changes) == ([], [])
    assert place.status()["managedBy"] == "other/dllm-b"


def test_a_pod_without_a_known_port_is_silent_and_stops_nobody() -> None:
    async def story(place: Place) -> None:
        place.show_pod(port_name="other")
        await place.look()

    assert drive(story).counts.looks == ["NoReadings"]


@pytest.mark.parametrize("mode", ["Off", "Observe"])
def test_off_and_observe_change_nothing(mode: str) -> None:
    before: list[tuple[str, dict[str, Any]]] = []

    async def story(place: Place) -> None:
        before.append((place.template(), place.file()))
        await cut(place)
        await cut(place)

    place = drive(story, tuning=TUNING | {"mode": mode})

    assert [(place.template(), place.file())] == before
    assert place.file() == {"generation": 0}
    if mode == "Off":
        assert "tuning" not in place.status()["pools"][0]
        assert place.condition()["reason"] == "TuningOff"
    else:
        assert place.tuning()["proposal"].startswith("peak at 98.0% of the device")
        assert place.condition()["reason"] == "ChangeProposed"


def test_a_new_leader_goes_on_where_the_old_one_stopped() -> None:
    async def story(place: Place) -> None:
        await cut(place)
        cut_to = place.file()
        place.begin()
        await place.reconciler.reconcile(KEY)
        assert place.file() == cut_to
        place.answer(0, 1, 2, generation=1)
        await place.look()
        place.answer(0, 1, 2, 3, generation=1)
        await place.look()
        assert place.file() == cut_to

    place = drive(story)

    assert place.tuning()["generation"] == 1
    assert place.tuning()["lastChange"]["reason"] == "PeakAboveTarget"


def test_a_hand_in_the_config_map_is_undone_and_said() -> None:
    async def story(place: Place) -> None:
        await cut(place)
        good = place.file()
        name = ("ConfigMap", "chat-cpu-tuning")
        live = place.kube.objects[name]
        edited = live | {
            "data": {"tuning.json": '{"generation": 99, "max_num_batched_tokens": 1}'},
            "metadata": live["metadata"] | {"resourceVersion": place.kube.next_version()},
        }
        place.view.children["ConfigMap"].put(place.kube.store(edited))
        await place.reconciler.reconcile(KEY)
        assert place.file() == good

    place = drive(story)

    assert place.tuning()["editedAt"] == "2026-01-01T00:00:00Z"
    assert place.tuning()["generation"] == 1
    assert "EditUndone" in [e["reason"] for e in place.kube.bodies if e["kind"] == "Event"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("dllm_device_memory_bytes", " NaN", "dllm_device_memory_bytes is nan"),
        ("dllm_device_memory_bytes", " 0", "dllm_device_memory_bytes is 0"),
        ("dllm_device_memory_bytes", " -5", "dllm_device_memory_bytes is -5"),
        ("dllm_max_model_len", "_gone 1", "dllm_max_model_len is missing"),
    ],
)
def test_metrics_that_lie_change_nothing_and_are_said(before: str, after: str, said: str) -> None:
    async def story(place: Place) -> None:
        await cut(place)
        lines = place.text.splitlines()
        place.text = (
            "\n".join(before + after if line.startswith(f"{before} ") else line for line in lines) + "\n"
        )
        await place.look()
        await place.look()

    place = drive(story)

    assert place.file()["generation"] == 1
    assert place.tuning()["notes"] == [f"chat-cpu-1: {said}"]
    assert (place.condition()["status"], place.condition()["reason"]) == ("Unknown", "NoReadings")


def test_an_engine_that_never_applies_is_named() -> None:
    async def story(place: Place) -> None:
        await cut(place)
        for number in range(2, 9):
            place.answer(number, generation=0, activations=120 * MIB)
            await place.look()

    place = drive(story)

    assert place.file()["generation"] == 1
    assert (place.condition()["status"], place.condition()["reason"]) == ("False", "NotApplied")
    assert "chat-cpu-1 did not take over generation 1" in place.condition()["message"]


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        ({"reason": "OOMKilled", "exitCode": 137}, "HostOutOfMemory"),
        ({"reason": "Error", "exitCode": 86}, "OutOfMemory"),
    ],
)
def test_an_end_for_want_of_memory_cuts_once(ended: dict[str, Any], reason: str) -> None:
    async def story(place: Place) -> None:
        place.answer(0)
        await place.look()
        state = {"terminated": ended | {"finishedAt": "2026-01-01T00:00:30Z"}}
        place.show_pod(make_container({"running": {}}, state, restartCount=1), is_ready=False)
        await place.look()
        await place.look()

    place = drive(story)

    assert place.counts.changes == [reason]
    assert place.file()["max_num_batched_tokens"] == 512
    assert place.tuning()["outOfMemory"] + place.tuning()["hostOutOfMemory"] == 1


def test_a_second_resource_of_the_same_key_starts_from_what_the_first_learned() -> None:
    async def story(place: Place) -> None:
        await cut(place)
        other = make_body(
            uid="1c2d", name="more", device="cpu", networking={"port": 9}, engine=ENGINE, tuning=TUNING
        )
        other["metadata"]["resourceVersion"] = place.kube.next_version()
        place.view.resources.put(place.kube.store(other | {"status": {}}))
        await place.reconciler.reconcile((NAMESPACE, "more"))

    place = drive(story)

    document = json.loads(place.kube.objects["ConfigMap", "more-cpu-tuning"]["data"]["tuning.json"])
    assert document["max_num_batched_tokens"] == place.file()["max_num_batched_tokens"]
    [container] = place.kube.objects["Deployment", "more-cpu"]["spec"]["template"]["spec"]["containers"]
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    assert env["DLLM_MAX_NUM_BATCHED_TOKENS"] == str(place.file()["max_num_batched_tokens"])
    assert env["DLLM_MAX_MODEL_LEN"] == "512"


def test_an_edit_while_pods_are_read_is_seen() -> None:
    async def story(place: Place) -> None:
        place.answer(0)
        await place.look()
        place.meanwhile = lambda: place.edit(engine=ENGINE | {"maxNumBatchedTokens": 700})
        place.answer(0, 1)
        await place.look()

    place = drive(story)

    assert place.file()["max_num_batched_tokens"] == 700
    assert place.tuning()["generation"] == 1


def test_a_resource_that_is_switched_off_while_pods_are_read_is_left_alone() -> None:
    async def story(place: Place) -> None:
        place.answer(0)
        await place.look()
        place.meanwhile = lambda: place.edit(tuning=TUNING | {"mode": "Off"})
        place.answer(0, 1, activations=120 * MIB)
        await place.look()

    assert drive(story).counts.changes == []


def test_long_intervals_lose_no_window() -> None:
    async def story(place: Place) -> None:
        place.answer(0)
        await place.look()
        place.answer(1, activations=120 * MIB)
        await place.look(MOST_BETWEEN_SCRAPES)  # only read
        assert place.counts.looks == ["NoTraffic"]
        place.answer(20, 21)
        await place.look(600.0)

    place = drive(story, tuning=TUNING | {"intervalSeconds": 600})

    assert place.counts.changes == ["PeakAboveTarget"]


def test_a_process_that_began_anew_has_no_former_windows() -> None:
    first = parse_reading(metrics_text(make_snapshot(make_window(5), steps=100)))
    anew = parse_reading(metrics_text(make_snapshot(make_window(0), steps=3)))

    assert merged(first, anew) is anew
    assert merged(None, anew) is anew


def test_a_resource_that_is_gone_is_forgotten() -> None:
    async def story(place: Place) -> None:
        place.answer(0)
        await place.look()
        place.view.resources.drop(place.view.resources.objects[KEY])
        await place.look()

    place = drive(story)

    assert place.tuner._watched == {}


GPU_POOL: dict[str, Any] = {"device": "cuda", "gpuPools": [{"name": "cpu", "product": "L4"}]}
FULL = {"weights": 700 * MIB, "kv_pool": 200 * MIB, "other": 80 * MIB, "free": 0}  # steps are not to blame


def add_gpus(place: Place, count: int) -> None:
    node = make_node_body("node-a", "NVIDIA-L4")
    node["status"]["allocatable"]["nvidia.com/gpu"] = str(count)
    place.view.put_node(node)


def settle(place: Place) -> None:
    """As its controller and the kubelet leave the Deployment: one pod, on the GPU."""
    live = place.kube.objects["Deployment", "chat-cpu"]
    counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), 1)
    version = {"resourceVersion": place.kube.next_version()}
    place.view.children["Deployment"].put(
        place.kube.store(live | {"status": counts, "metadata": live["metadata"] | version})
    )
    place.show_pod(resources={"limits": {"nvidia.com/gpu": "1"}})


def test_a_pool_without_room_for_a_new_pod_is_not_restarted_until_there_is_some() -> None:
    messages: list[str] = []
    templates: list[str] = []

    async def story(place: Place) -> None:
        add_gpus(place, 1)
        settle(place)
        place.answer(0)
        await place.look()
        for number, gpus in enumerate((1, 2), start=1):
            add_gpus(place, gpus)
            steps = {"activations": 5 * MIB, "logits": 5 * MIB}
            windows = [make_window(n, peak_bytes=FULL | steps) for n in (number - 1, number)]
            place.text = metrics_text(make_snapshot(*windows, live=LIVE))
            await place.look()
            messages.append(place.tuning()["message"])
            templates.append(place.template())

    drive(story, **GPU_POOL)

    assert messages[0].startswith("waits for room for a new pod: the pool's only one would have to go first")
    assert "kv_pool_bytes" in messages[1]
    assert not messages[1].startswith("waits")
    assert "tuning-restart" not in templates[0]
    assert "tuning-restart" in templates[1]
