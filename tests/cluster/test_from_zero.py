"""A resource without a pod: what is asked of it waits at its front door, wakes as many pods as it needs and
is answered; when nobody asks any more, all go. Without KEDA and Prometheus."""

from __future__ import annotations

import json

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import Images
from tests.cluster.operator_pods import kill, leaders
from tests.cluster.serving import InClusterClient, make_resource, wait_reason

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("explained")]

NAME = "sleeper"
MOST = 3
IDLE_SECONDS = 10
START_SECONDS = 240.0
AT_ONCE = f"""
import json, sys, threading, urllib.request
body = json.dumps({{"messages": [{{"role": "user", "content": "2 + 3 ="}}], "max_tokens": 8}}).encode()
seen = []
def ask():
    request = urllib.request.Request(
        "http://{NAME}:8000/v1/chat/completions", body, {{"Content-Type": "application/json"}}
    )
    try:
        with urllib.request.urlopen(request, timeout={START_SECONDS}) as answer:
            answer.read()
            seen.append(answer.status)
    except Exception as error:
        seen.append(str(error))
threads = [threading.Thread(target=ask) for _ in range(COUNT)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def client(cluster: Cluster, operator: Images, door_image: str, shared_namespace: str) -> InClusterClient:
    """Beside a resource that sleeps."""
    scaling = {"provider": "Builtin", "minReplicas": 0, "maxReplicas": MOST, "idleSeconds": IDLE_SECONDS}
    client = InClusterClient(cluster, shared_namespace, operator.server)
    cluster.apply(make_resource(NAME, autoscaling=scaling), shared_namespace)
    wait_reason(cluster, shared_namespace, NAME, "DoorReady", "DoorOpen", 180)
    wait_reason(cluster, shared_namespace, NAME, "Ready", "ScaledToZero", 60)
    return client


def ask(client: InClusterClient, at_once: int) -> list[int | str]:
    """The status of each answer, or what came instead."""
    found: list[int | str] = json.loads(client.python(AT_ONCE.replace("COUNT", str(at_once))))
    return found


def pods(cluster: Cluster, namespace: str) -> set[str]:
    selector = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/managed-by=dllm-operator"
    return {pod["metadata"]["name"] for pod in cluster.list("pods", namespace, selector)}


@pytest.mark.sampled(0.5, of="from zero")
def test_requests_that_one_pod_runs_at_once_wake_one_though_the_operator_is_killed_and_it_goes_when_idle(
    cluster: Cluster, shared_namespace: str, client: InClusterClient
) -> None:
    assert pods(cluster, shared_namespace) == set()

    for leader in leaders(cluster):
        kill(cluster, leader)
    assert ask(client, 8) == [200] * 8
    assert len(pods(cluster, shared_namespace)) == 1
    wait_reason(cluster, shared_namespace, NAME, "ScalingActive", "Sleeps", 180)
    cluster.wait_for("no pod is left", lambda: not pods(cluster, shared_namespace), 120)


@pytest.mark.sampled(0.5, of="from zero")
def test_more_than_one_pod_runs_at_once_wakes_more(
    cluster: Cluster, shared_namespace: str, client: InClusterClient
) -> None:
    assert ask(client, 20) == [200] * 20
    assert len(pods(cluster, shared_namespace)) == MOST
