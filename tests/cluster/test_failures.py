"""Every class of failure on a real cluster: reason and message reach the resource, and recovery clears them.

What real containers can show is real; what would need a GPU, or a node under pressure, is written into the
status of a simulated node's pod, as its kubelet would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from dllm_operator.cluster.pod_setup import SET_UP_SECONDS
from dllm_server.cause import Cause, Explanation
from dllm_server.termination import Termination, TerminationReason

from tests.cluster.cluster import Cluster
from tests.cluster.resources import Fields, Manifest, Objects, Serving, eventually, merged
from tests.cluster.serving import SMALL
from tests.cluster.simulated_nodes import NODE_LABEL, SimulatedNodes, on_node

pytestmark = pytest.mark.cluster

NODE = "simulated-failures"
LOST_NODE = "node-2"
REPORTED_SECONDS = 90.0
CONTAINER_SECONDS = 120.0  # until a container that starts Python and torch says anything
REAL: Fields = {"device": "cpu"} | SMALL
SIMULATED: Fields = {"device": "cpu", "podTemplate": on_node(NODE)}
EMPTY_SECRET = "hub"
SECRET_VALUE = {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "value"}}}
CRASHING: Fields = {"podTemplate": {"env": [{"name": "PYTHONHOME", "value": "/nowhere"}]}}


@dataclass(frozen=True)
class Case:
    """A spec that fails, what a pod shows then, what the resource has to say, and the edits that heal it."""

    name: str
    reason: str
    spec: Fields
    shown: tuple[str, ...]  # states of the container that show the failure
    says: tuple[str, ...]
    cures: tuple[Fields, ...]
    seconds: float = REPORTED_SECONDS

    def __str__(self) -> str:
        return self.name


CASES = [
    Case(
        "memory-limit",
        "OOMKilled",
        {"podTemplate": {"resources": {"requests": {"memory": "32Mi"}, "limits": {"memory": "32Mi"}}}},
        shown=("OOMKilled",),
        says=("0 of 1 pods are ready", "container engine exceeded its memory limit", "raise the limit"),
        cures=(
            {"podTemplate": {"resources": {"requests": {"memory": "512Mi"}, "limits": {"memory": "2Gi"}}}},
        ),
    ),
    Case(
        "absent-image",
        "ImagePullFailed",
        {"image": "example.local/absent:1"},
        shown=("ErrImagePull", "ImagePullBackOff"),
        says=("example.local/absent:1",),
        cures=({"image": None},),
    ),
    Case(
        "absent-model",
        "StartFailed",
        {
            "model": {"source": "nobody/absent"},
            "podTemplate": {"env": [{"name": "HF_HUB_OFFLINE", "value": "1"}]},
        },
        shown=("Error",),
        says=("HF_HUB_OFFLINE is set, and the cache does not hold the model",),
        cures=(
            {"replicas": 0, "podTemplate": {"env": None}},
            {"replicas": 1, "model": {"source": "embedded"}},
        ),
    ),
    Case(
        "absent-secret",
        "StartFailed",
        {"podTemplate": {"env": [SECRET_VALUE]}},
        shown=("CreateContainerConfigError",),
        says=("CreateContainerConfigError", 'secret "absent" not found'),
        cures=({"podTemplate": {"env": None}},),
    ),
    Case(
        "secret-without-the-key",
        "StartFailed",
        {"model": {"source": "nobody/absent", "tokenSecret": {"name": EMPTY_SECRET, "key": "token"}}},
        shown=("CreateContainerConfigError",),
        says=("couldn't find key token in Secret", EMPTY_SECRET),
        cures=({"replicas": 0}, {"replicas": 1, "model": {"source": "embedded", "tokenSecret": None}}),
    ),
    Case(
        "slow-start",
        "StartFailed",
        {"podTemplate": {"startupTimeoutSeconds": 10, "resources": {"limits": {"cpu": "100m"}}}},
        shown=("Error", "Completed"),
        says=("did not serve within 10 s", "raise podTemplate.startupTimeoutSeconds"),
        cures=({"podTemplate": {"startupTimeoutSeconds": None, "resources": {"limits": None}}},),
    ),
    Case(
        "absent-keys",
        "VolumesNotMounted",
        {"auth": {"apiKeysSecret": {"name": "absent-keys"}}},
        shown=("ContainerCreating",),
        says=("has not mounted Secret absent-keys",),
        cures=({"auth": None},),
        seconds=REPORTED_SECONDS + SET_UP_SECONDS,
    ),
    Case(
        "crash",
        "CrashLoop",
        CRASHING,
        shown=("Error",),
        says=("exit code 1 after", "the container's log says why"),
        cures=({"podTemplate": {"env": None}},),
    ),
    Case(
        "no-such-node",
        "Unschedulable",
        {"podTemplate": {"nodeSelector": {NODE_LABEL: "nowhere"}}},
        shown=(),
        says=("didn't match Pod's node affinity/selector",),
        cures=({"podTemplate": on_node(NODE)},),
    ),
]


@pytest.fixture(scope="module")
def nodes(standing_nodes: SimulatedNodes) -> SimulatedNodes:
    standing_nodes.add(NODE)
    return standing_nodes


@pytest.fixture(scope="module")
def objects(operator: object, cluster: Cluster, nodes: SimulatedNodes) -> Iterator[Objects]:
    """One namespace for all, so that the real containers fail at the same time."""
    with cluster.temporary_namespace("failures") as name:
        yield Objects(cluster, name)


@pytest.fixture(scope="module")
def failing(objects: Objects) -> dict[str, Serving]:
    """By name: one a case, and one that is left to fail again and again."""
    objects.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": EMPTY_SECRET}})
    specs = {case.name: case.spec for case in CASES} | {"loop": CRASHING}
    return {name: Serving.create(objects, name, REAL, spec) for name, spec in specs.items()}


def container_states(pod: Manifest) -> Fields:
    """By reason: what the container is or was last."""
    found: Fields = {}
    for container in pod["status"].get("containerStatuses", ()):
        for state in (container.get("lastState", {}), container.get("state", {})):
            for how in state.values():
                found[how.get("reason", "")] = how
    return found


def wait_shown(serving: Serving, reasons: tuple[str, ...]) -> None:
    """Until a pod shows one of them."""

    def check() -> None:
        states = [container_states(pod) for pod in serving.pods()]
        assert any(reason in state for state in states for reason in reasons), states

    eventually(check, CONTAINER_SECONDS)


@pytest.mark.sampled(0.5)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_failure_is_reported_with_its_reason_and_goes_with_its_cause(
    failing: dict[str, Serving], case: Case
) -> None:
    serving = failing[case.name]
    if case.shown:
        wait_shown(serving, case.shown)

    ready = serving.wait_reason("Ready", case.reason, case.seconds)

    assert ready["status"] == "False"
    for words in case.says:
        assert words in ready["message"]
    eventually(lambda: check_events(serving, case.reason, 1))
    for cure in case.cures:
        serving.edit(cure)
    serving.wait_ready(CONTAINER_SECONDS)
    serving.delete()


def check_events(serving: Serving, reason: str, count: int) -> None:
    events = serving.events(reason)
    told = [f"{e['firstTimestamp']} {e['message']}" for e in events if e["message"].startswith("Ready: ")]
    assert len(told) == count, "\n".join(told)
    assert all(event["type"] == "Warning" for event in events)


def test_a_loop_of_crashes_is_one_event(failing: dict[str, Serving]) -> None:
    serving = failing["loop"]

    eventually(lambda: check_restarts(serving, 3), CONTAINER_SECONDS)
    check_events(serving, "CrashLoop", 1)
    serving.delete()


def check_restarts(serving: Serving, count: int) -> None:
    restarts = [
        container["restartCount"]
        for pod in serving.pods()
        for container in pod["status"].get("containerStatuses", ())
    ]
    assert max(restarts, default=0) >= count


def injected(pod: Manifest, container: Fields, **status: Any) -> Fields:
    """Status of a pod whose only container fails as said."""
    conditions = [
        condition | ({"status": "False"} if condition["type"] in ("Ready", "ContainersReady") else {})
        for condition in pod["status"]["conditions"]
    ]
    (before,) = pod["status"]["containerStatuses"]
    broken = before | {"ready": False, "started": False} | container
    return {"status": {"conditions": conditions, "containerStatuses": [broken]} | status}


def inject(serving: Serving, write: Callable[[Manifest], Fields]) -> Manifest:
    """Into the only pod of a resource that is Ready; the pod as it was."""
    serving.wait_ready()
    (pod,) = serving.pods()
    serving.objects.patch("Pod", pod["metadata"]["name"], write(pod), "status")
    return pod


def crashed(exit_code: int, message: str) -> Fields:
    ended = {"exitCode": exit_code, "reason": "Error", "message": message}
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}
    return {
        "restartCount": 4,
        "state": {"running": None, "waiting": waiting},
        "lastState": {"terminated": ended},
    }


@pytest.mark.parametrize("is_told", [True, False], ids=["with its message", "by its exit code alone"])
def test_a_device_out_of_memory_is_told_apart_from_a_crash(objects: Objects, is_told: bool) -> None:
    serving = Serving.create(objects, f"device-{'told' if is_told else 'mute'}", SIMULATED)
    why = Explanation(Cause.DEVICE_MEMORY_AT_START)
    said = Termination.of_start(TerminationReason.DEVICE_OUT_OF_MEMORY, why)
    container = crashed(said.exit_code, said.to_json() if is_told else "Traceback ...")

    pod = inject(serving, lambda pod: injected(pod, container))

    ready = serving.wait_reason("Ready", "CUDAOutOfMemory", REPORTED_SECONDS)
    assert (said.message if is_told else "the device ran out of memory") in ready["message"]
    objects.patch("Pod", pod["metadata"]["name"], {"status": pod["status"]}, "status")
    serving.wait_ready()
    serving.delete()


def test_a_pod_that_waits_for_its_image_says_which(objects: Objects) -> None:
    serving = Serving.create(objects, "pulling", SIMULATED)
    creating = {"state": {"running": None, "waiting": {"reason": "ContainerCreating"}}}

    def pulling(pod: Manifest) -> Fields:
        body = injected(pod, creating, phase="Pending")
        body["status"]["conditions"].append({"type": "PodReadyToStartContainers", "status": "True"})
        return body

    pod = inject(serving, pulling)

    image = pod["spec"]["containers"][0]["image"]
    ready = serving.wait_reason("Ready", "PodsStarting", REPORTED_SECONDS)
    assert f"pulls image {image} on node {NODE}" in ready["message"]
    serving.delete()


@pytest.mark.parametrize(
    ("name", "said", "reason"),
    [("evicted", "Evicted", "Evicted"), ("refused", "UnexpectedAdmissionError", "PodFailed")],
)
def test_a_pod_that_the_kubelet_gives_up_is_reported_until_another_serves(
    objects: Objects, nodes: SimulatedNodes, name: str, said: str, reason: str
) -> None:
    serving = Serving.create(objects, name, SIMULATED)
    serving.wait_ready()
    nodes.cordon(NODE)
    ended = {"restartCount": 0, "state": {"running": None, "terminated": {"exitCode": 137}}}
    message = "The node was low on resource: memory."
    try:
        inject(serving, lambda pod: injected(pod, ended, phase="Failed", reason=said, message=message))

        ready = serving.wait_reason("Ready", reason, REPORTED_SECONDS)
        assert message in ready["message"]

        nodes.cordon(NODE, is_closed=False)
        serving.wait_ready()
        nodes.cordon(NODE)
        serving.edit({"engine": {"maxNumSeqs": 4}})  # the failed pod is still there, and no reason any more

        progressing = serving.wait_reason("Progressing", "RolloutBlocked", REPORTED_SECONDS)
        assert "unschedulable" in progressing["message"]
    finally:
        nodes.cordon(NODE, is_closed=False)
    serving.wait_ready()
    serving.delete()


def test_a_lost_node_is_named_until_it_is_back(cluster: Cluster, objects: Objects) -> None:
    if cluster.program is None:
        pytest.skip("only the program that the variable CLUSTER names can kill a kubelet")
    pinned = merged(REAL, {"podTemplate": {"nodeSelector": {"kubernetes.io/hostname": LOST_NODE}}})
    serving = Serving.create(objects, "lost", pinned)
    serving.wait_ready(CONTAINER_SECONDS)
    kubelet = LOST_NODE.replace("node", "kubelet")
    everywhere = Objects(cluster)

    def node_state() -> str:
        conditions = everywhere.get("Node", LOST_NODE)["status"]["conditions"]
        return next(str(c["status"]) for c in conditions if c["type"] == "Ready")

    def is_lost() -> None:
        assert node_state() != "True"

    try:
        cluster.control("kill", kubelet)
        eventually(is_lost, 60.0)

        ready = serving.wait_reason("Ready", "NodeLost", REPORTED_SECONDS)

        assert f"node {LOST_NODE} is not ready" in ready["message"]
    finally:
        cluster.control("start", kubelet)
    serving.wait_ready(CONTAINER_SECONDS)
    assert len(serving.events("NodeLost")) == 1
    serving.delete()
