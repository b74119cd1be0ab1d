"""A front door on a real cluster: it opens, deals out requests, rolls and goes, and loses none."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import Images
from tests.cluster.load import Load, constant_load, long_streams
from tests.cluster.serving import InClusterClient, condition, make_resource, wait_ready, wait_reason

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("explained")]

NAME = "door"
DOORS = [f"{NAME}-front-door-{number}" for number in (1, 2)]
DOOR_PODS = f"app.kubernetes.io/name=dllm-front-door,app.kubernetes.io/instance={NAME}"
POOLS = [{"name": "a", "replicas": 1}, {"name": "b", "replicas": 1}]
STREAMS = 4
AROUND = 20  # requests before and after what happens
ASK = f"""
import json, urllib.request
body = json.dumps({{"messages": [{{"role": "user", "content": "2 + 3 ="}}], "max_tokens": 8}}).encode()
for _ in range(8):
    request = urllib.request.Request(
        "http://{NAME}:8000/v1/chat/completions", body, {{"Content-Type": "application/json"}}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        print(json.dumps({{name.lower(): value for name, value in answer.headers.items()}}))
"""


@dataclass(frozen=True)
class Endpoint:
    """Two pools behind one front door, and a client pod beside them."""

    cluster: Cluster
    namespace: str
    client: InClusterClient

    def load(self) -> AbstractContextManager[Load]:
        return constant_load(self.cluster, self.namespace, NAME, fresh=2, kept=2)

    def switch(self, front_door: str) -> None:
        self.cluster.patch("dllm", NAME, self.namespace, {"spec": {"networking": {"frontDoor": front_door}}})

    def wait_open(self) -> None:
        wait_reason(self.cluster, self.namespace, NAME, "DoorReady", "DoorOpen", 180)
        for door in DOORS:
            self.cluster.kubectl(
                "rollout", "status", f"deployment/{door}", "-n", self.namespace, "--timeout=180s"
            )

    def wait_away(self) -> None:
        def is_away() -> bool:
            return not self.cluster.list("pods", self.namespace, DOOR_PODS)

        self.cluster.wait_for("no pod of the door is left", is_away, 240)


@pytest.fixture(scope="module")
def endpoint(cluster: Cluster, operator: Images, door_image: str, shared_namespace: str) -> Endpoint:
    networking = {"frontDoor": "On", "requestTimeoutSeconds": 600}
    cluster.apply(make_resource(NAME, gpuPools=POOLS, networking=networking), shared_namespace)
    client = InClusterClient(cluster, shared_namespace, operator.server)
    wait_ready(cluster, shared_namespace, NAME)
    return Endpoint(cluster, shared_namespace, client)


def test_requests_go_through_the_door_to_both_pools(cluster: Cluster, endpoint: Endpoint) -> None:
    endpoint.wait_open()

    answers = [json.loads(line) for line in endpoint.client.python(ASK).splitlines()]

    served = Counter(answer["x-served-by"].partition("-")[0] for answer in answers)
    assert set(served) == {"a", "b"}, served
    assert all(answer["x-request-id"] for answer in answers)
    service = cluster.get("service", NAME, endpoint.namespace)
    assert service is not None
    assert service["spec"]["selector"]["app.kubernetes.io/name"] == "dllm-front-door"
    policy = cluster.get("networkpolicy", NAME, endpoint.namespace)
    assert policy is not None
    assert len(policy["spec"]["ingress"][0]["from"]) == 2  # the door and the operator


@pytest.mark.sampled(0.5, of="long streams")
def test_a_door_that_rolls_and_a_pod_that_goes_fail_no_request(cluster: Cluster, endpoint: Endpoint) -> None:
    endpoint.wait_open()
    namespace = endpoint.namespace
    before = {pod["metadata"]["name"] for pod in cluster.list("pods", namespace, DOOR_PODS)}
    with long_streams(cluster, namespace, NAME, STREAMS) as streams, endpoint.load() as load:
        cluster.wait_for("every stream has begun", lambda: streams.begun == STREAMS, 300)
        load.wait(cluster, AROUND)
        cluster.kubectl("delete", "pods", "-n", namespace, "-l", DOOR_PODS, "--wait=false")
        cluster.wait_for(
            "other pods of the door serve",
            lambda: (
                not before & {pod["metadata"]["name"] for pod in cluster.list("pods", namespace, DOOR_PODS)}
                or bool(streams.ended)
            ),
            300,
        )
        endpoint.wait_open()
        load.wait(cluster, AROUND)
        engine, *_ = cluster.list(
            "pods", namespace, f"app.kubernetes.io/instance={NAME},serving.dllm.dev/pool=a"
        )
        cluster.kubectl("delete", "pod", engine["metadata"]["name"], "-n", namespace)
        wait_ready(cluster, namespace, NAME)
        load.wait(cluster, AROUND)

    print(load.summary(), streams.ended)
    assert load.failed() == [], load.summary()
    assert [stream for stream in streams.ended if not stream["is_done"] or stream["error"]] == []
    assert len(streams.ended) == STREAMS


def test_switching_the_door_off_and_on_fails_no_request(cluster: Cluster, endpoint: Endpoint) -> None:
    endpoint.wait_open()
    with endpoint.load() as load:
        load.wait(cluster, AROUND)
        endpoint.switch("Off")
        endpoint.wait_away()
        load.wait(cluster, AROUND)
        assert condition(cluster, endpoint.namespace, NAME, "DoorReady") == {}
        endpoint.switch("On")
        endpoint.wait_open()
        load.wait(cluster, AROUND)

    print(load.summary())
    assert load.failed() == [], load.summary()
