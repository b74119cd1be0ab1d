"""Pods that go while requests come: deletions, crashes and rollouts under load from inside the cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from tests.cluster.cluster import Cluster, Manifest
from tests.cluster.conftest import Images
from tests.cluster.load import Load, constant_load, long_streams
from tests.cluster.serving import InClusterClient, make_resource, wait_ready

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("explained")]

NAME = "rolling"
SELECTOR = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/name=dllm-serve"
REPLICAS = 2
STREAMS = 4  # on two pods: either has some, whichever goes
FRESH, KEPT = 2, 1  # threads of the load
AROUND = 10  # requests before and after what happens
BROKEN = {
    "BadStatusLine",
    "BrokenPipeError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "IncompleteRead",
    "RemoteDisconnected",
}
KILL_ENGINE = """
import os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if b"dllm_server.engine.process" in (process / "cmdline").read_bytes().split(b"\\0"):
        os.kill(int(process.name), signal.SIGKILL)
        print("killed")
"""


@dataclass(frozen=True)
class Endpoint:
    """Two pods behind one Service, and a client pod beside them."""

    cluster: Cluster
    namespace: str

    def settle(self) -> set[str]:
        """Names of the ready pods, once there are as many as wanted and no others."""
        wait_ready(self.cluster, self.namespace, NAME)
        pods = self.cluster.wait_for("every pod is ready and none is going", self._settled_pods, 120)
        return {pod["metadata"]["name"] for pod in pods}

    def _settled_pods(self) -> list[Manifest] | None:
        pods = self.cluster.list("pods", self.namespace, SELECTOR)
        ready = [pod for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]
        return pods if len(pods) == len(ready) == REPLICAS else None

    def load(self) -> AbstractContextManager[Load]:
        return constant_load(self.cluster, self.namespace, NAME, fresh=FRESH, kept=KEPT)


def is_ready(pod: Manifest) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@pytest.fixture(scope="module")
def endpoint(cluster: Cluster, operator: Images, shared_namespace: str) -> Endpoint:
    """One for all tests of this file: two pods cost more than what happens to them."""
    cluster.apply(make_resource(NAME, replicas=REPLICAS), shared_namespace)
    InClusterClient(cluster, shared_namespace, operator.server)
    return Endpoint(cluster, shared_namespace)


def check_retried(load: Load) -> None:
    """What failed was refused with 503 or broke with its pod, and an answer came in the end."""
    assert load.unanswered() == [], load.summary()
    errors = {request.error for request in load.failed()}
    assert {error for error in errors if not error.startswith("503 ")} <= BROKEN


def test_a_deleted_pod_fails_no_request(cluster: Cluster, endpoint: Endpoint) -> None:
    victim, *_ = endpoint.settle()
    with endpoint.load() as load:
        load.wait(cluster, AROUND)
        cluster.kubectl("delete", "pod", victim, "-n", endpoint.namespace)  # waits for its end
        load.wait(cluster, AROUND)
        assert victim not in endpoint.settle()

    print(load.summary())
    assert load.failed() == [], load.summary()


def test_a_pod_deleted_by_force_fails_only_its_own_requests(cluster: Cluster, endpoint: Endpoint) -> None:
    victim, *_ = endpoint.settle()
    with endpoint.load() as load:
        load.wait(cluster, AROUND)
        cluster.kubectl("delete", "pod", victim, "-n", endpoint.namespace, "--force", "--grace-period=0")
        assert victim not in endpoint.settle()
        before = len(load.requests)
        load.wait(cluster, AROUND)

    print(load.summary())
    check_retried(load)
    assert Load(load.requests[before:]).failed() == [], load.summary()


def test_a_pod_whose_engine_is_killed_fails_only_its_own_requests(
    cluster: Cluster, endpoint: Endpoint
) -> None:
    victim, *_ = endpoint.settle()
    with endpoint.load() as load:
        load.wait(cluster, AROUND)
        python = ("exec", "-i", victim, "-n", endpoint.namespace, "--", "/opt/dllm/bin/python", "-")
        assert cluster.kubectl(*python, stdin=KILL_ENGINE).split() == ["killed"]
        cluster.wait_for("the container restarts", lambda: restarts(cluster, endpoint, victim) == 1)
        assert victim in endpoint.settle()
        before = len(load.requests)
        load.wait(cluster, AROUND)

    print(load.summary())
    check_retried(load)
    assert Load(load.requests[before:]).failed() == [], load.summary()


def restarts(cluster: Cluster, endpoint: Endpoint, pod: str) -> int:
    found = cluster.get("pod", pod, endpoint.namespace)
    assert found is not None
    return sum(status["restartCount"] for status in found["status"]["containerStatuses"])


@pytest.mark.sampled(0.5, of="long streams")
def test_a_pod_that_a_scale_down_takes_finishes_its_streams(cluster: Cluster, endpoint: Endpoint) -> None:
    before = endpoint.settle()
    namespace = endpoint.namespace

    def leaving() -> list[str]:
        pods = cluster.list("pods", namespace, SELECTOR)
        return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" in pod["metadata"]]

    try:
        with long_streams(cluster, namespace, NAME, STREAMS) as streams:
            cluster.wait_for("every stream has begun", lambda: streams.begun == STREAMS, 300)
            cluster.patch("dllm", NAME, namespace, {"spec": {"replicas": 1}})
            cluster.wait_for("a pod is told to go", leaving)
            assert streams.ended == [], "the streams are too short to show anything"
    finally:
        cluster.patch("dllm", NAME, namespace, {"spec": {"replicas": REPLICAS}})

    assert [stream for stream in streams.ended if not stream["is_done"] or stream["error"]] == []
    assert len(streams.ended) == STREAMS
    cluster.wait_for("the pod is gone", lambda: before - endpoint.settle(), 120)


def test_a_rollout_fails_no_request(cluster: Cluster, endpoint: Endpoint) -> None:
    before = endpoint.settle()
    with endpoint.load() as load:
        load.wait(cluster, AROUND)
        template = {"podTemplate": {"annotations": {"tests.dllm.dev/rollout": "2"}}}
        cluster.patch("dllm", NAME, endpoint.namespace, {"spec": template})
        cluster.wait_for("no old pod is left", lambda: not endpoint.settle() & before, 240)
        load.wait(cluster, AROUND)

    print(load.summary())
    assert load.failed() == [], load.summary()
