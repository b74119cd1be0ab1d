from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.pod_setup import SET_UP_SECONDS
from dllm_operator.reporting.failures import (
    MAX_MESSAGE,
    Failure,
    FailureReason,
    classify,
    is_serving,
    shorten,
    worst_failure,
)
from dllm_server.cause import Cause, Explanation
from dllm_server.termination import Termination, TerminationReason

from tests.operator.objects import make_container, make_pod

BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}}
RUNNING = {"running": {"startedAt": "2026-01-01T00:05:00Z"}}


def ended(exit_code: int, message: str = "", reason: str = "Error", **fields: Any) -> Manifest:
    return {"terminated": {"exitCode": exit_code, "reason": reason, "message": message, **fields}}


def ended_with(reason: TerminationReason, cause: Cause, **numbers: int) -> Manifest:
    told = Termination.of_start(reason, Explanation(cause, numbers))
    return ended(told.exit_code, f"{told.to_json()}\n")


def waiting(reason: str, message: str = "details") -> Manifest:
    state = {"waiting": {"reason": reason, "message": message}}
    return make_pod(make_container(state, image="org/x:1"), phase="Pending")


def crashed(last: Manifest, restarts: int = 2, state: Manifest = BACK_OFF) -> Manifest:
    return make_pod(make_container(state, last, restartCount=restarts))


UNSCHEDULABLE = make_pod(
    node=None,
    phase="Pending",
    conditions=[
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        }
    ],
)
EVICTED = make_pod(
    make_container(ended(137, reason="ContainerStatusUnknown")),
    phase="Failed",
    reason="Evicted",
    message="The node was low on resource: ephemeral-storage.",
)
REFUSED = make_pod(
    phase="Failed",
    reason="UnexpectedAdmissionError",
    message="Allocate failed due to requested number of devices unavailable for nvidia.com/gpu",
    containerStatuses=[],
)
SHUT_DOWN = make_pod(
    make_container(ended(137)), phase="Failed", reason="Terminated", message="imminent node shutdown"
)
OOM_KILLED = crashed(ended(137, reason="OOMKilled"))
CUDA = crashed(ended_with(TerminationReason.DEVICE_OUT_OF_MEMORY, Cause.DEVICE_MEMORY_AT_START))
PULL = waiting("ImagePullBackOff", 'Back-off pulling image "org/x:1": ErrImagePull: org/x:1: not found')
START = waiting("CreateContainerConfigError", 'secret "keys" not found')
TOO_LONG = crashed(
    ended_with(TerminationReason.BUDGET_EXCEEDED, Cause.MODEL_LEN, max_model_len=8192, longest=4096)
)
CRASH = crashed(ended(1, "Traceback: boom"))

CASES = [
    pytest.param(OOM_KILLED, FailureReason.OOM_KILLED, "raise the limit", id="killed by the kernel"),
    pytest.param(
        crashed(ended(137, reason="OOMKilled"), 1, RUNNING),
        FailureReason.OOM_KILLED,
        "restarts: 1",
        id="running again after an OOM kill",
    ),
    pytest.param(
        make_pod(make_container(ended(137, reason="OOMKilled"))),
        FailureReason.OOM_KILLED,
        "restarts: 0",
        id="just killed",
    ),
    pytest.param(CUDA, FailureReason.CUDA_OUT_OF_MEMORY, "the device refused memory", id="CUDA, told"),
    pytest.param(
        crashed(ended(86)), FailureReason.CUDA_OUT_OF_MEMORY, "ran out of memory", id="CUDA by the exit code"
    ),
    pytest.param(
        crashed(ended(86, "last line of the log")),
        FailureReason.CUDA_OUT_OF_MEMORY,
        "ran out of memory",
        id="CUDA by the exit code, other text in the log",
    ),
    pytest.param(
        PULL,
        FailureReason.IMAGE_PULL_FAILED,
        "ImagePullBackOff: image org/x:1: the registry has no such image",
        id="pull backs off",
    ),
    pytest.param(waiting("ErrImagePull"), FailureReason.IMAGE_PULL_FAILED, "ErrImagePull", id="pull fails"),
    pytest.param(
        waiting("InvalidImageName"), FailureReason.IMAGE_PULL_FAILED, "InvalidImageName", id="bad image name"
    ),
    pytest.param(
        waiting("ErrImageNeverPull"), FailureReason.IMAGE_PULL_FAILED, "ErrImageNeverPull", id="never pulled"
    ),
    pytest.param(START, FailureReason.START_FAILED, 'secret "keys" not found', id="Secret missing"),
    pytest.param(
        waiting("CreateContainerError"), FailureReason.START_FAILED, "CreateContainerError", id="not created"
    ),
    pytest.param(
        crashed(ended(128, 'exec: "dllm": executable file not found in $PATH', "StartError")),
        FailureReason.START_FAILED,
        "StartError: the image has no such program",
        id="no such program",
    ),
    pytest.param(
        crashed(ended_with(TerminationReason.START_FAILED, Cause.HUB_MODEL)),
        FailureReason.START_FAILED,
        "the hub has no such model",
        id="the server refuses to start",
    ),
    pytest.param(
        TOO_LONG,
        FailureReason.START_FAILED,
        "max_model_len 8192 exceeds the model's 4096: lower it",
        id="the budget does not fit",
    ),
    pytest.param(
        CRASH, FailureReason.CRASH_LOOP, "exit code 1 after 2 restarts: the container's log", id="crashes"
    ),
    pytest.param(
        crashed(ended(0, reason="Completed")), FailureReason.CRASH_LOOP, "exit code 0", id="ends repeatedly"
    ),
    pytest.param(
        crashed(ended(139, Termination.of_engine(-11).to_json())),
        FailureReason.CRASH_LOOP,
        "the engine process was ended by signal 11",
        id="the engine died",
    ),
    pytest.param(
        make_pod(make_container({"waiting": {"reason": "PodInitializing"}}), initContainerStatuses=[
            make_container(BACK_OFF, ended(3, "init broke"), name="init", restartCount=4)
        ]),
        FailureReason.CRASH_LOOP,
        "exit code 3 after 4 restarts: the container's log says why",
        id="an init container crashes",
    ),
    pytest.param(EVICTED, FailureReason.EVICTED, "low on resource", id="evicted"),
    pytest.param(
        REFUSED,
        FailureReason.POD_FAILED,
        "UnexpectedAdmissionError: Allocate failed",
        id="the kubelet cannot give it a GPU",
    ),
    pytest.param(
        SHUT_DOWN, FailureReason.POD_FAILED, "Terminated: imminent node shutdown", id="ended with its node"
    ),
    pytest.param(UNSCHEDULABLE, FailureReason.UNSCHEDULABLE, "Insufficient nvidia.com/gpu", id="no room"),
]  # fmt: skip


@pytest.mark.parametrize(("pod", "reason", "message"), CASES)
def test_a_pod_that_does_not_serve_says_why(pod: Manifest, reason: FailureReason, message: str) -> None:
    failure = classify(pod)

    assert failure is not None
    assert (failure.reason, failure.name) == (reason, "chat-l40s-1")
    assert message in failure.message
    assert len(failure.message) <= MAX_MESSAGE


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(make_pod(is_ready=True), id="ready"),
        pytest.param(make_pod(), id="running, not ready yet"),
        pytest.param(waiting("ContainerCreating"), id="being created"),
        pytest.param(waiting("PodInitializing"), id="initialising"),
        pytest.param(make_pod(node=None, phase="Pending"), id="not seen by the scheduler yet"),
        pytest.param(
            make_pod(initContainerStatuses=[make_container(ended(0, reason="Completed"), name="init")]),
            id="an init container has ended well",
        ),
        pytest.param(
            make_pod(
                make_container(RUNNING, ended(137, reason="OOMKilled"), ready=True, restartCount=3),
                is_ready=True,
            ),
            id="ready again after an OOM kill",
        ),
    ],
)
def test_a_pod_that_serves_or_starts_as_it_should_has_no_failure(pod: Manifest) -> None:
    assert classify(pod) is None
    assert worst_failure([pod]) is None


@pytest.mark.parametrize("pod", [OOM_KILLED, CUDA, PULL, CRASH], ids=["OOM", "CUDA", "pull", "crash"])
def test_a_pod_on_its_way_out_has_no_failure(pod: Manifest) -> None:
    leaving = pod | {"metadata": pod["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}}

    assert worst_failure([leaving]) is None


ORDER = [OOM_KILLED, CUDA, PULL, START, CRASH, EVICTED, REFUSED, UNSCHEDULABLE]


@pytest.mark.parametrize(("first", "second"), [*pairwise(ORDER)])
def test_of_two_pods_the_one_with_the_class_that_comes_first_is_reported(
    first: Manifest, second: Manifest
) -> None:
    expected = classify(first)

    assert worst_failure([first, second]) == worst_failure([second, first]) == expected


def test_of_two_pods_of_one_class_the_first_by_name_is_reported() -> None:
    pods = [crashed(ended(1, text)) for text in ("one", "two")]
    pods[0]["metadata"]["name"] = "chat-l40s-2"

    failure = worst_failure(pods)

    assert failure is not None
    assert failure.name == "chat-l40s-1"


def test_a_pod_on_a_lost_node_says_so_unless_it_is_known_to_have_another_trouble() -> None:
    lost = frozenset({"node-a"})

    failure = classify(make_pod(), lost)
    assert failure == Failure(FailureReason.NODE_LOST, "node node-a is not ready", "chat-l40s-1")
    assert classify(make_pod(is_ready=True), lost) is None
    assert classify(make_pod(node="node-b"), lost) is None
    crash = classify(CRASH, lost)
    assert crash is not None
    assert crash.reason is FailureReason.CRASH_LOOP


def test_an_evicted_pod_is_forgotten_when_a_later_one_of_its_pool_serves() -> None:
    later = make_pod(name="chat-l40s-2", born="2026-01-01T01:00:00Z", is_ready=True)
    elsewhere = make_pod(name="chat-l4-1", pool="l4", born="2026-01-01T01:00:00Z", is_ready=True)
    starting = make_pod(name="chat-l40s-2", born="2026-01-01T01:00:00Z")

    assert worst_failure([EVICTED, later]) is None
    for other in (elsewhere, starting):
        failure = worst_failure([EVICTED, other])
        assert failure is not None
        assert failure.reason is FailureReason.EVICTED


def test_a_long_message_keeps_its_end() -> None:
    long = make_pod(phase="Failed", reason="Evicted", message="x" * 4000 + " the last word")
    failure = classify(long)

    assert failure is not None
    assert len(failure.message) <= MAX_MESSAGE
    assert failure.message.endswith("the last word")
    assert shorten("short") == "short"
    assert len(shorten("y" * 900)) == MAX_MESSAGE


@pytest.mark.parametrize(
    ("pod", "serves"),
    [
        pytest.param(make_pod(is_ready=True), True, id="ready"),
        pytest.param(make_pod(), False, id="not ready"),
        pytest.param(
            make_pod(make_container(ended(1), ready=False), is_ready=True), False, id="condition outdated"
        ),
        pytest.param(
            make_pod(is_ready=True, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            False,
            id="on its way out",
        ),
        pytest.param(make_pod(node=None, phase="Pending"), False, id="without a node"),
    ],
)
def test_a_pod_serves_while_it_is_ready_and_stays(pod: Manifest, serves: bool) -> None:
    assert is_serving(pod) is serves


SCHEDULED = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)


def being_set_up(ready: str = "False", **fields: Any) -> Manifest:
    pod = make_pod(
        make_container({"waiting": {"reason": "ContainerCreating"}}),
        conditions=[
            {"type": "PodReadyToStartContainers", "status": ready},
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"},
        ],
        **({"phase": "Pending"} | fields),
    )
    pod["spec"]["volumes"] = [
        {"name": "keys", "secret": {"secretName": "api-keys"}},
        {"name": "model", "persistentVolumeClaim": {"claimName": "weights"}},
    ]
    return pod


@pytest.mark.parametrize(("late", "fails"), [(-0.1, False), (0.0, True), (600.0, True)])
def test_a_pod_whose_node_does_not_set_it_up_in_time_names_what_it_mounts(late: float, fails: bool) -> None:
    at = SCHEDULED + timedelta(seconds=SET_UP_SECONDS + late)

    failure = classify(being_set_up(), at=at)

    assert (failure is not None) is fails
    if failure is not None:
        assert failure.reason is FailureReason.VOLUMES_NOT_MOUNTED
        assert "node node-a has not mounted Secret api-keys, PersistentVolumeClaim weights" in failure.message


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(being_set_up("True"), id="set up, its image is being pulled"),
        pytest.param(being_set_up(phase="Running"), id="running"),
        pytest.param(waiting("ContainerCreating"), id="a kubelet that does not say"),
    ],
)
def test_a_pod_that_is_set_up_is_never_late(pod: Manifest) -> None:
    assert classify(pod, at=SCHEDULED + timedelta(days=1)) is None


def test_a_lost_node_tells_more_than_what_it_has_not_mounted() -> None:
    failure = classify(being_set_up(), frozenset({"node-a"}), SCHEDULED + timedelta(days=1))

    assert failure is not None
    assert failure.reason is FailureReason.NODE_LOST


def test_without_a_scheduling_time_the_pod_counts_from_its_creation() -> None:
    pod = being_set_up()
    del pod["status"]["conditions"][1]["lastTransitionTime"]

    assert classify(pod, at=datetime(2026, 1, 1, 0, 0, 29, tzinfo=UTC)) is None
    assert classify(pod, at=datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)) is not None
