"""Pods that are deleted while they start, and the threads of those whose CPU is limited: containers of the
images, without an operator."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, Manifest
from tests.cluster.conftest import Images

pytestmark = pytest.mark.cluster

GRACE_SECONDS = 600  # what a signal that is lost would cost
GONE_SECONDS = 30  # of a machine that does other work as well; told to stop, a process takes one or two
SERVE = {"args": ["serve"], "env": [{"name": "DLLM_KV_POOL_BYTES", "value": "128MiB"}]}
OPERATE = {"args": ["run"], "env": [{"name": "DLLM_OPERATOR_SERVER_IMAGE", "value": "server:1"}]}
ENGINE_THREADS = """
import json, pathlib
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if b"dllm_server.engine.process" in (process / "cmdline").read_bytes().split(b"\\0"):
        variables = (process / "environ").read_bytes().split(b"\\0")
        told = [each.decode() for each in variables if each.startswith(b"OMP_NUM_THREADS=")]
        print(json.dumps(told))
"""


def make_pod(name: str, image: str, cpu: str, **container: Any) -> Manifest:
    """One container that nothing restarts, under the restricted profile."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    limits = {"cpu": cpu, "memory": "1536Mi"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "one",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "resources": {"requests": {"cpu": "50m", "memory": "512Mi"}, "limits": limits},
                    "securityContext": security,
                }
                | container
            ],
        },
    }


def is_running(cluster: Cluster, namespace: str, name: str) -> bool:
    status = (cluster.get("pod", name, namespace) or {}).get("status", {})
    return any("running" in each["state"] for each in status.get("containerStatuses", ()))


def is_logged(word: str) -> Callable[[Cluster, str, str], bool]:
    return lambda cluster, namespace, name: word in cluster.kubectl("logs", name, "-n", namespace)


@pytest.mark.sampled(0.5)
@pytest.mark.parametrize(
    ("stage", "container"),
    [
        (is_running, SERVE),
        (is_logged("starting engine"), SERVE),
        (is_logged("engine ready"), SERVE),
        (is_logged("listening"), SERVE),
        (is_running, OPERATE),
    ],
    ids=[
        "the server's container has just started",
        "its engine starts",
        "its engine is ready",
        "it listens",
        "the operator's container has just started",
    ],
)
def test_a_pod_that_is_deleted_while_it_starts_is_gone_soon(
    cluster: Cluster,
    images: Images,
    namespace: str,
    stage: Callable[[Cluster, str, str], bool],
    container: dict[str, Any],
) -> None:
    image = images.server if container is SERVE else images.operator
    cluster.apply(make_pod("starting", image, "500m", **container), namespace)
    cluster.wait_for("it has come so far", lambda: stage(cluster, namespace, "starting"), 300)

    cluster.kubectl("delete", "pod", "starting", "-n", namespace, "--wait=false")

    gone = lambda: cluster.get("pod", "starting", namespace) is None  # noqa: E731
    cluster.wait_for("the pod is gone", gone, GONE_SECONDS)


@pytest.mark.parametrize(
    ("cpu", "own", "told"),
    [
        ("400m", [], ["OMP_NUM_THREADS=1"]),
        ("400m", [{"name": "OMP_NUM_THREADS", "value": "3"}], ["OMP_NUM_THREADS=3"]),
        ("500", [], []),
    ],
    ids=["a fraction", "the user's own", "more than the node has"],
)
def test_an_engine_takes_as_many_threads_as_its_pod_may_use(
    cluster: Cluster,
    images: Images,
    namespace: str,
    cpu: str,
    own: list[dict[str, str]],
    told: list[str],
) -> None:
    settings = SERVE | {"env": [*SERVE["env"], *own]}
    cluster.apply(make_pod("limited", images.server, cpu, **settings), namespace)
    is_starting = is_logged("starting engine")
    cluster.wait_for("its engine starts", lambda: is_starting(cluster, namespace, "limited"), 300)

    def threads() -> str:
        python = ("exec", "-i", "limited", "-n", namespace, "--", "/opt/dllm/bin/python", "-")
        return cluster.kubectl(*python, stdin=ENGINE_THREADS).strip()

    assert json.loads(cluster.wait_for("the engine process is there", threads, 60)) == told
