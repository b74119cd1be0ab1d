"""Specs that hypothesis draws from the CRD's schema and from the examples, against the real operator.

What the API server admits ends in a status for its generation, without an exception of the operator's, and
meanwhile other resources are reconciled as ever. The namespace may hold no pods, so Deployments cost little.

FUZZ_OBJECTS says how many must be admitted, FUZZ_SECONDS how soon a sentinel must be followed (5 on a machine
that does nothing else), FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import pytest
from dllm_operator.api.v1alpha1 import API_VERSION, KIND
from hypothesis import HealthCheck, Phase, given, seed, settings
from kubernetes.client.exceptions import ApiException

from tests.cluster.cluster import POLL_SECONDS, Cluster
from tests.cluster.conftest import RELEASE_NAMESPACE
from tests.cluster.operator_pods import SELECTOR, leaders, metric, pod_names
from tests.cluster.resources import Objects, Serving, eventually
from tests.operator.spec_strategy import Spec, specs

pytestmark = pytest.mark.cluster

OBJECTS = int(os.environ.get("FUZZ_OBJECTS", "40"))
SEED = int(os.environ.get("FUZZ_SEED", random.randrange(2**32)))
MOST_SECONDS = float(os.environ.get("FUZZ_SECONDS", "30"))  # from an edit of a sentinel to its status
SETTLE_SECONDS = 60.0 + OBJECTS / 2
CLIENTS = 2
MOST_LINES = 40  # of the operator's log in a failure
ALWAYS_TOLD = {
    "Ready",
    "Progressing",
    "SpecValid",
    "PoolsScheduled",
    "TuningConverged",
    "IntegrationsReady",
}
MOST_OPEN = 24  # resources made and not told of yet


def drawn(count: int, number: int) -> list[Spec]:
    found: list[Spec] = []

    @seed(number)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(specs)
    def collect(spec: Spec) -> None:
        found.append(spec)

    collect()
    return found


@dataclass
class Sentinel:
    """A resource that is edited all the time; seconds until each edit is in its status."""

    serving: Serving
    seconds: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._edit, name="sentinel", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _edit(self) -> None:
        number = 0
        while not self._stop.wait(0.5):
            number += 1
            generation = self.serving.edit({"podTemplate": {"annotations": {"edit": str(number)}}})
            started = time.monotonic()
            while self.serving.status().get("observedGeneration", 0) < generation:
                if time.monotonic() - started > 2 * MOST_SECONDS:
                    break
                time.sleep(0.05)
            self.seconds.append(time.monotonic() - started)


def admit(objects: Objects, number: int, spec: Spec) -> str | None:
    """The name it got, None where the API server refused it."""
    name = f"fuzz-{number}"
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
    return name if _is_accepted(lambda: objects.create(body)) else None


def edit(objects: Objects, name: str, spec: Spec) -> bool:
    """By a merge of ``spec``."""
    return _is_accepted(lambda: objects.patch(KIND, name, {"spec": spec}))


def _is_accepted(request: Any) -> bool:
    try:
        request()
    except ApiException as error:
        if error.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
            return False
        raise
    return True


def wait_for_status(objects: Objects, names: list[str]) -> None:
    """Of the last of them: authors do not come by the hundred at once."""

    def check() -> None:
        assert objects.get(KIND, names[-1]).get("status", {}).get("conditions"), names[-1]

    if names:
        eventually(check, SETTLE_SECONDS)


def unsettled(objects: Objects) -> list[str]:
    """Resources without a status for their newest generation, or with a fault in it, and their specs."""
    return [
        f"{body['metadata']['name']}: {problem}: {json.dumps(body['spec'])}"
        for body in objects.list(KIND)
        if (problem := _problem(body)) is not None
    ]


def _problem(body: dict[str, Any]) -> str | None:
    status, generation = body.get("status", {}), body["metadata"]["generation"]
    conditions = status.get("conditions", ())
    faults = [each["message"] for each in conditions if each["reason"] == "InternalError"]
    if faults:
        return faults[0]
    if status.get("observedGeneration") != generation:
        return f"generation {generation}, observed {status.get('observedGeneration')}"
    missing = ALWAYS_TOLD - {each["type"] for each in conditions}
    if missing or any(each["observedGeneration"] != generation for each in conditions):
        return f"conditions {conditions}"
    return None


def settle(cluster: Cluster, objects: Objects) -> float:
    """Seconds until every resource has its status; a failure has what the operator logged of those that have
    none."""
    started = time.monotonic()
    deadline = started + SETTLE_SECONDS
    while left := unsettled(objects):
        if time.monotonic() > deadline:
            told = [*left[:5], *operator_log(cluster, [line.split(":")[0] for line in left])]
            raise AssertionError("\n".join(told))
        time.sleep(POLL_SECONDS)
    return time.monotonic() - started


def operator_log(cluster: Cluster, names: list[str]) -> list[str]:
    """The newest lines about these resources, their children or pods."""
    chosen = ("-l", SELECTOR, "-n", RELEASE_NAMESPACE, "--tail=-1")
    about = re.compile(rf"\b({'|'.join(names)})\b")
    lines = cluster.kubectl("logs", *chosen).splitlines()
    return [line for line in lines if about.search(line)][-MOST_LINES:]


def test_whatever_is_admitted_gets_a_status_while_others_are_served(
    cluster: Cluster, objects: Objects
) -> None:
    print(f"FUZZ_SEED={SEED} FUZZ_OBJECTS={OBJECTS}")
    chosen = drawn(4 * OBJECTS, SEED)
    sentinel = Sentinel(Serving.create(objects, "sentinel", {"device": "cpu", "replicas": 0}))
    sentinel.serving.wait_reason("Ready", "ScaledToZero")
    before = restarts(cluster)
    (leader,) = cluster.wait_for("one pod leads", lambda: leaders(cluster))
    faults = metric(cluster, leader, "dllm_operator_internal_errors_total")
    with cluster.temporary_namespace("fuzz") as namespace:
        fuzzed = Objects(cluster, namespace)
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": "no-pods"},
                "spec": {"hard": {"pods": "0"}},
            },
            namespace,
        )
        with sentinel.watched(), ThreadPoolExecutor(CLIENTS) as pool:
            started, names, tried = time.monotonic(), [], 0
            while len(names) < OBJECTS and tried < len(chosen):
                batch = chosen[tried : tried + 4 * CLIENTS]
                made = pool.map(lambda item: admit(fuzzed, *item), enumerate(batch, tried))
                names += [name for name in made if name is not None]
                tried += len(batch)
                wait_for_status(fuzzed, names[:-MOST_OPEN])
            created = time.monotonic() - started
            settled = settle(cluster, fuzzed)
            others = random.Random(SEED).sample(chosen, len(names))
            edited = sum(pool.map(lambda name, spec: edit(fuzzed, name, spec), names, others))
            settled_again = settle(cluster, fuzzed)
    cluster.wait_for(
        "nothing is left to clear away", lambda: cluster.get("namespace", namespace) is None, 60.0 + OBJECTS
    )
    slowest = max(sentinel.seconds)
    print(
        f"{len(names)} of {tried} specs admitted in {created:.0f} s, a status for all {settled:.0f} s later; "
        f"{edited} edits admitted, a status for all in {settled_again:.0f} s; "
        f"{len(sentinel.seconds)} edits of the sentinel, each in its status within {slowest:.2f} s; "
        f"a load of {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    )
    assert len(names) >= OBJECTS
    assert slowest <= MOST_SECONDS
    assert restarts(cluster) == before
    assert metric(cluster, leader, "dllm_operator_internal_errors_total") == faults


def restarts(cluster: Cluster) -> dict[str, int]:
    """Of the operator's containers."""
    pods = [cluster.get("pod", name, RELEASE_NAMESPACE) or {} for name in pod_names(cluster)]
    return {
        pod["metadata"]["name"]: container["restartCount"]
        for pod in pods
        for container in pod["status"]["containerStatuses"]
    }
