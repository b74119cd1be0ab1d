"""Budgets tuned from what pods report: two pools that differ, ends for want of memory, and everything that
can go wrong between the operator and an engine.

An idle engine on a CPU holds about 450 MiB. A limit of 800 MiB and a target of 0.5 are a peak above target
without any load, for which pages have to give way; 940 MiB leave room for idling and little for steps.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from dllm_operator.cluster.kinds import BY_KIND
from dllm_server.termination import DEVICE_OUT_OF_MEMORY_EXIT_CODE
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.cluster import Cluster, CommandError
from tests.cluster.conftest import RELEASE_NAMESPACE, Images
from tests.cluster.load import constant_load
from tests.cluster.operator_pods import kill, leaders
from tests.cluster.resources import Fields, Manifest, Objects, Serving, eventually, merged
from tests.cluster.serving import make_client_pod
from tests.cluster.simulated_nodes import SimulatedNodes, on_node

pytestmark = pytest.mark.cluster

NODE = "simulated-tuning"
START_SECONDS = 120.0
INTERVAL_SECONDS = 30
QUICK_SECONDS = 5
WINDOW_SECONDS = 4 + uuid4().int % 1000 / 100_000  # a key of this run alone: what earlier ones learned stays
START_TOKENS = {"small": 4096, "large": 320}


def limit(mib: int) -> Fields:
    return {"requests": {"cpu": "20m", "memory": "512Mi"}, "limits": {"memory": f"{mib}Mi"}}


ENGINE: Fields = {
    "kvPoolBytes": "128MiB",
    "maxNumSeqs": 32,
    "maxModelLen": 320,
    "retentionRatio": 0.25,
    "memoryWindowSeconds": WINDOW_SECONDS,
}
QUICK: Fields = {"mode": "Auto", "intervalSeconds": QUICK_SECONDS, "targetMemoryUtilization": 0.5}


def tight(number: int, *changes: Fields) -> Fields:
    """A pool above its target; another ``number`` makes another key, which shares no profile."""
    engine = {"engine": {"memoryWindowSeconds": WINDOW_SECONDS + number / 100}}
    return merged(TIGHT, engine, *changes)


TIGHT: Fields = {
    "device": "cpu",
    "engine": ENGINE | {"maxNumBatchedTokens": 2048},
    "tuning": QUICK,
    "podTemplate": {"resources": limit(800)},
}
TWO_POOLS: Fields = {
    "device": "cpu",
    "engine": ENGINE,
    "tuning": QUICK | {"intervalSeconds": INTERVAL_SECONDS},
    "gpuPools": [
        {
            "name": name,
            "replicas": 1,
            "engine": {"maxNumBatchedTokens": START_TOKENS[name]},
            "resources": limit(mib),
        }
        for name, mib in (("small", 940), ("large", 2048))
    ],
}


@pytest.fixture(scope="module")
def nodes(standing_nodes: SimulatedNodes) -> SimulatedNodes:
    standing_nodes.add(NODE)
    return standing_nodes


@pytest.fixture(scope="module")
def objects(operator: Images, cluster: Cluster, nodes: SimulatedNodes, calm: None) -> Iterator[Objects]:
    """One namespace for all, so that pods start at the same time."""
    with cluster.temporary_namespace("tuning") as name:
        cluster.apply(make_client_pod(operator.server), name)
        yield Objects(cluster, name)


def tuning(serving: Serving, pool: str = "cpu") -> Fields:
    """Of the pool's status; empty before there is one."""
    pools = {each["name"]: each for each in serving.status().get("pools", ())}
    found: Fields = pools.get(pool, {}).get("tuning", {})
    return found


def wait_tuning(serving: Serving, pool: str, seconds: float, **expected: Any) -> Fields:
    """The pool's tuning once its fields are as expected."""

    def check() -> Fields:
        found = tuning(serving, pool)
        assert {name: found.get(name) for name in expected} == expected, found
        return found

    return eventually(check, seconds)


def file(serving: Serving, pool: str = "cpu") -> Fields:
    content = serving.objects.get("ConfigMap", f"{serving.name}-{pool}-tuning")["data"]["tuning.json"]
    document: Fields = json.loads(content)
    return document


def engine_metrics(cluster: Cluster, pod: Manifest) -> dict[str, float]:
    """Live settings and the applied generation, as the engine itself says them."""
    metadata = pod["metadata"]
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}:9464/proxy/metrics"
    samples = [s for f in text_string_to_metric_families(cluster.raw(path)) for s in f.samples]
    live = {s.labels["setting"]: s.value for s in samples if s.name == "dllm_live_setting"}
    return live | {s.name: s.value for s in samples if s.name == "dllm_tuning_generation"}


def pod_of(serving: Serving, pool: str = "cpu") -> Manifest:
    [pod] = [p for p in serving.pods() if p["metadata"]["labels"]["serving.dllm.dev/pool"] == pool]
    return pod


def template_hash(serving: Serving, pool: str = "cpu") -> str:
    return str(pod_of(serving, pool)["metadata"]["labels"]["pod-template-hash"])


@pytest.fixture(scope="module")
def tuned(objects: Objects) -> Serving:
    serving = Serving.create(objects, "tuned", TWO_POOLS)
    serving.wait_ready(START_SECONDS)
    return serving


@pytest.fixture(scope="module")
def observed(objects: Objects) -> Serving:
    return Serving.create(objects, "observed", tight(1, {"tuning": {"mode": "Observe"}}))


def test_two_pools_end_with_settings_of_their_own_in_the_same_pods(
    cluster: Cluster, objects: Objects, tuned: Serving
) -> None:
    before = {pool: pod_of(tuned, pool)["metadata"]["uid"] for pool in START_TOKENS}
    assert objects.namespace is not None

    with constant_load(cluster, objects.namespace, "tuned", fresh=24, words=30) as load:
        small = eventually(lambda: check_changed(tuned, "small"), 3 * INTERVAL_SECONDS)
        decided = datetime.now(UTC)
        eventually(lambda: check_applied(cluster, tuned, "small"), 2 * INTERVAL_SECONDS)
        took = (datetime.now(UTC) - decided).total_seconds()
        large = eventually(lambda: check_changed(tuned, "large"), 4 * INTERVAL_SECONDS)
        eventually(lambda: check_applied(cluster, tuned, "large"), 2 * INTERVAL_SECONDS)
        shown = {pool: eventually(lambda: check_shown(cluster, tuned, pool), 90.0) for pool in START_TOKENS}  # noqa: B023

    # More than two cores can answer in time: clients may lose patience, but no engine refuses or loses any.
    assert not [request for request in load.failed() if str(request.error)[0].isdigit()], load.summary()
    assert not load.unanswered(), load.summary()
    assert took <= 2 * INTERVAL_SECONDS
    assert small["lastChange"]["reason"] == "PeakAboveTarget"
    assert shown["small"] < START_TOKENS["small"]
    assert large["lastChange"]["reason"] in ("CautiousStep", "ModelStep")
    assert shown["large"] > START_TOKENS["large"]
    assert {pool: pod_of(tuned, pool)["metadata"]["uid"] for pool in START_TOKENS} == before
    status = tuned.status()
    assert status["tuned"].split()[0].startswith("small=")
    assert "pool small: " in tuned.condition("TuningConverged")["message"]
    assert [e for e in tuned.events("PeakAboveTarget") if "pool small" in e["message"]]


def check_changed(serving: Serving, pool: str) -> Fields:
    found = tuning(serving, pool)
    assert found.get("lastChange"), found
    return found


def check_applied(cluster: Cluster, serving: Serving, pool: str) -> None:
    now, engine = tuning(serving, pool), engine_metrics(cluster, pod_of(serving, pool))
    assert engine["dllm_tuning_generation"] == now["generation"], engine
    assert engine["max_num_batched_tokens"] == file(serving, pool)["max_num_batched_tokens"]


def check_shown(cluster: Cluster, serving: Serving, pool: str) -> int:
    """The token budget that the status tells, once it is the one that runs."""
    shown: int = tuning(serving, pool)["settings"]["maxNumBatchedTokens"]
    assert engine_metrics(cluster, pod_of(serving, pool))["max_num_batched_tokens"] == shown
    return shown


def test_a_killed_operator_loses_nothing_it_learned(cluster: Cluster, tuned: Serving) -> None:
    before = {pool: (tuning(tuned, pool), file(tuned, pool)) for pool in START_TOKENS}

    for pod in leaders(cluster):
        kill(cluster, pod)

    for pool, (learned, told) in before.items():
        now = eventually(lambda: check_looked_again(tuned, pool, learned), 120.0)  # noqa: B023
        assert now["generation"] >= learned["generation"]
        assert now["outOfMemory"] == learned["outOfMemory"]
        if now["generation"] == learned["generation"]:
            assert file(tuned, pool) == told


def check_looked_again(serving: Serving, pool: str, before: Fields) -> Fields:
    now = tuning(serving, pool)
    assert now["lookedAt"] > before["lookedAt"]
    return now


def test_an_edit_by_hand_is_undone_and_said(tuned: Serving) -> None:
    good = file(tuned, "small")

    nonsense = json.dumps({"generation": 99, "max_num_batched_tokens": 1})
    tuned.objects.patch("ConfigMap", "tuned-small-tuning", {"data": {"tuning.json": nonsense}})

    eventually(lambda: check_file(tuned, "small", good))
    eventually(lambda: check_edit_said(tuned, "small"))
    assert [e for e in tuned.events("EditUndone") if e["type"] == "Warning"]


def check_file(serving: Serving, pool: str, expected: Fields) -> None:
    now = file(serving, pool)
    assert now["generation"] >= expected["generation"]
    assert now["generation"] != 99


def check_edit_said(serving: Serving, pool: str) -> None:
    assert tuning(serving, pool).get("editedAt")


def test_observe_says_what_it_would_do_and_changes_nothing(observed: Serving) -> None:
    observed.wait_ready(START_SECONDS)
    before = template_hash(observed)

    condition = observed.wait_reason("TuningConverged", "ChangeProposed", START_SECONDS)

    assert "would change: peak at" in condition["message"]
    assert tuning(observed)["proposal"].startswith("peak at")
    for mode in ("Off", "Observe", "Off"):
        observed.edit({"tuning": {"mode": mode}})
        observed.wait_ready()
        assert template_hash(observed) == before
        assert {k: v for k, v in file(observed).items() if k != "checksum"} == {"generation": 0}
    observed.wait_reason("TuningConverged", "TuningOff")
    observed.delete()


def test_an_engine_that_never_applies_is_named_and_left_alone(cluster: Cluster, objects: Objects) -> None:
    """Its process is stopped after a load, while the API still answers with its last windows."""
    roomy = {"podTemplate": {"resources": limit(1000)}, "tuning": {"mode": "Off"}}
    serving = Serving.create(objects, "deaf", tight(2, roomy))
    serving.wait_ready(START_SECONDS)
    assert objects.namespace is not None
    with constant_load(cluster, objects.namespace, "deaf", fresh=12, words=30) as load:
        load.wait(cluster, 24)
    pod = pod_of(serving)["metadata"]["name"]
    run_in(cluster, objects, pod, STOP_ENGINE)

    serving.edit({"tuning": {"mode": "Auto"}})

    condition = serving.wait_reason("TuningConverged", "NotApplied", START_SECONDS)
    assert condition["status"] == "False"
    assert f"{pod} did not take over generation 1" in condition["message"]
    assert tuning(serving)["generation"] == 1
    assert pod_of(serving)["metadata"]["name"] == pod
    serving.delete()


STOP_ENGINE = r"""
import os, signal
for process in filter(str.isdigit, os.listdir("/proc")):
    with open(f"/proc/{process}/cmdline", "rb") as file:
        if b"-m\x00dllm_server.engine.process\x00" in file.read():
            os.kill(int(process), signal.SIGSTOP)
            print(process)
"""
FILL_MEMORY = """
import os, time
for _ in range(14):  # each smaller than the engine, which is the first to go when the container is full
    if os.fork() == 0:
        held = bytearray(b"x") * (60 << 20)
        time.sleep(15)
        os._exit(0)
time.sleep(15)
"""


def run_in(cluster: Cluster, objects: Objects, pod: str, code: str) -> str:
    return cluster.kubectl(
        "exec", pod, "-n", str(objects.namespace), "--", "/opt/dllm/bin/python", "-c", code
    )


def test_metrics_that_vanish_change_nothing(objects: Objects) -> None:
    serving = Serving.create(objects, "mute", tight(3, {"podTemplate": on_node(NODE)}))
    serving.wait_ready()

    condition = serving.wait_reason("TuningConverged", "NoReadings", START_SECONDS)

    assert condition["status"] == "Unknown"
    eventually(lambda: check_silence_said(serving), 60.0)
    assert tuning(serving)["generation"] == 0
    serving.delete()


def check_silence_said(serving: Serving) -> None:
    assert "no metrics" in " ".join(tuning(serving).get("notes", ()))


def test_a_device_that_ran_out_has_its_own_reason_and_cut(objects: Objects) -> None:
    serving = Serving.create(objects, "device", tight(4, {"podTemplate": on_node(NODE)}))
    serving.wait_ready()
    pod = pod_of(serving)
    (container,) = pod["status"]["containerStatuses"]
    finished = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = {"exitCode": DEVICE_OUT_OF_MEMORY_EXIT_CODE, "reason": "Error", "finishedAt": finished}
    failed = container | {"restartCount": 1, "lastState": {"terminated": ended}}

    serving.objects.patch(
        "Pod", pod["metadata"]["name"], {"status": {"containerStatuses": [failed]}}, "status"
    )

    found = wait_tuning(serving, "cpu", 60.0, outOfMemory=1)
    assert found["lastChange"]["reason"] == "OutOfMemory"
    assert found["settings"]["maxNumBatchedTokens"] == 1024
    assert file(serving)["max_num_batched_tokens"] == 1024
    assert found["hostOutOfMemory"] == 0
    assert serving.events("OutOfMemory")
    serving.delete()


def test_a_real_end_by_the_kubelet_has_its_own_reason_and_cut(cluster: Cluster, objects: Objects) -> None:
    roomy = tight(5, {"podTemplate": {"resources": limit(1024)}, "tuning": {"targetMemoryUtilization": 0.9}})
    serving = Serving.create(objects, "host", roomy)
    serving.wait_ready(START_SECONDS)
    pod = pod_of(serving)["metadata"]["name"]
    wait_tuning(serving, "cpu", START_SECONDS, generation=0, reason="NoTraffic")

    with contextlib.suppress(CommandError):  # it may end with the container
        run_in(cluster, objects, pod, FILL_MEMORY)

    found = wait_tuning(serving, "cpu", START_SECONDS, hostOutOfMemory=1)
    assert found["lastChange"]["reason"] == "HostOutOfMemory"
    assert serving.events("HostOutOfMemory")
    serving.wait_ready(START_SECONDS)
    assert file(serving)["max_num_batched_tokens"] == 1024
    serving.delete()


def test_a_second_resource_of_the_same_key_starts_from_what_was_learned(
    cluster: Cluster, objects: Objects, tuned: Serving
) -> None:
    learned = tuning(tuned, "small")["settings"]["maxNumBatchedTokens"]

    serving = Serving.create(objects, "again", TWO_POOLS)
    first = eventually(lambda: check_file_of(serving, "small"))

    assert first["generation"] == 1
    assert first["max_num_batched_tokens"] < START_TOKENS["small"]
    assert first["max_num_batched_tokens"] == pytest.approx(learned, rel=0.5)
    env = serving.environment("small")
    assert env["DLLM_MAX_NUM_BATCHED_TOKENS"] == str(max(first["max_num_batched_tokens"], 320))
    assert env["DLLM_MAX_MODEL_LEN"] == "320"
    profiles = Objects(cluster, RELEASE_NAMESPACE).get(BY_KIND["ConfigMap"].kind, "dllm-operator-profiles")
    assert profiles["data"]
    serving.delete()
    tuned.delete()


def check_file_of(serving: Serving, pool: str) -> Fields:
    found = serving.objects.find("ConfigMap", f"{serving.name}-{pool}-tuning")
    assert found is not None
    assert serving.objects.find("Deployment", f"{serving.name}-{pool}") is not None
    return file(serving, pool)
