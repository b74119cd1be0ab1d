"""What a pod is at while it starts as it should, and when its start took too long."""

from __future__ import annotations

from typing import Any

import pytest
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.observe import Manifest
from dllm_operator.reporting.failures import classify
from dllm_operator.reporting.reason import FailureReason
from dllm_operator.reporting.stages import has_lapsed, starting

from tests.operator.objects import make_container, make_pod

IMAGE = "example.local/dllm-server:dev"
CREATING = make_container({"waiting": {"reason": "ContainerCreating"}}, image=IMAGE)
RUNNING = make_container({"running": {"startedAt": "2026-01-01T00:00:00Z"}})
GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
STARTED, HALF_AN_HOUR_LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:30:00Z"


def set_up(status: str) -> dict[str, Any]:
    return {"conditions": [{"type": "PodReadyToStartContainers", "status": status}], "phase": "Pending"}


@pytest.mark.parametrize(
    ("pod", "says"),
    [
        pytest.param(make_pod(node=None, phase="Pending"), "waits for a node", id="no node"),
        pytest.param(
            make_pod(CREATING, **set_up("False")), "volumes and network set up by node node-a", id="mounts"
        ),
        pytest.param(make_pod(CREATING, **set_up("True")), f"pulls image {IMAGE} on node node-a", id="pull"),
        pytest.param(make_pod(CREATING, phase="Pending"), "is started by node node-a", id="not told"),
        pytest.param(
            make_pod(RUNNING), "downloads or loads its model since 2026-01-01T00:00:00Z", id="loading"
        ),
    ],
)
def test_a_pod_that_starts_says_what_it_is_at(pod: Manifest, says: str) -> None:
    assert starting((pod,)).startswith("pod chat-l40s-1 ")
    assert says in starting((pod,))


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(make_pod(is_ready=True), id="it serves"),
        pytest.param(make_pod(RUNNING, metadata=GOING), id="it goes"),
        pytest.param(
            make_pod(make_container({"waiting": {"reason": "ImagePullBackOff"}}), phase="Pending"), id="fails"
        ),
    ],
)
def test_a_pod_that_does_not_start_is_at_nothing(pod: Manifest) -> None:
    assert starting((pod,)) == ""


def make_unready(since: str, *, keys: str | None = None, **container: Any) -> Manifest:
    """Its container runs since 10:00:00 and has started; ``keys`` is the Secret of its API keys."""
    up = {"running": {"startedAt": "2026-01-01T10:00:00Z"}}
    pod = make_pod(make_container(up, **({"started": True} | container)))
    pod["status"]["conditions"] = [{"type": "Ready", "status": "False", "lastTransitionTime": since}]
    if keys is not None:
        items = [{"key": "bearer", "path": "keys"}]
        pod["spec"]["volumes"] = [{"name": "auth", "secret": {"secretName": keys, "items": items}}]
    return pod


def test_a_pod_that_runs_and_is_not_ready_names_the_secret_of_its_keys() -> None:
    said = starting((make_unready("2026-01-01T10:05:00Z", keys="chat-keys"),))

    assert "runs but is not ready" in said
    assert "Secret chat-keys may hold no API key under 'bearer'" in said


def test_a_pod_that_runs_and_is_not_ready_without_keys_says_where_the_reason_is() -> None:
    assert "runs but is not ready: its log says why" in starting((make_unready("2026-01-01T10:05:00Z"),))


@pytest.mark.parametrize(
    ("pod", "lapsed"),
    [
        pytest.param(make_unready("2026-01-01T10:05:00Z"), True, id="it was ready"),
        pytest.param(make_unready("2026-01-01T09:59:00Z"), False, id="it has never been"),
        pytest.param(make_unready("2026-01-01T10:05:00Z", started=False), False, id="it begins anew"),
        pytest.param(make_unready("2026-01-01T10:05:00Z") | {"metadata": GOING}, False, id="it goes"),
        pytest.param(make_pod(is_ready=True), False, id="it serves"),
    ],
)
def test_a_pod_that_was_ready_is_told_from_one_that_begins(pod: Manifest, lapsed: bool) -> None:
    assert has_lapsed((pod,)) is lapsed


def make_ended(code: int, over: str = HALF_AN_HOUR_LATER, *, has_started: bool = False) -> Manifest:
    """Ended once and started again; its startup probe allows 1800 s."""
    last = {"terminated": {"exitCode": code, "reason": "Error", "startedAt": STARTED, "finishedAt": over}}
    pod = make_pod(make_container({"running": {}}, last, restartCount=1, started=has_started))
    pod["spec"]["containers"] = [{"startupProbe": {"failureThreshold": 360, "periodSeconds": 5}}]
    return pod


@pytest.mark.parametrize(
    ("pod", "reason", "says"),
    [
        pytest.param(make_ended(143), FailureReason.START_FAILED, "within 1800 s", id="by SIGTERM"),
        pytest.param(make_ended(137), FailureReason.START_FAILED, "startupTimeoutSeconds", id="by SIGKILL"),
        pytest.param(make_ended(0), FailureReason.START_FAILED, "model.cache", id="it obeyed"),
        pytest.param(make_ended(1), FailureReason.CRASH_LOOP, "exit code 1", id="by itself"),
        pytest.param(
            make_ended(143, "2026-01-01T00:10:00Z"), FailureReason.CRASH_LOOP, "143", id="before its time"
        ),
        pytest.param(
            make_ended(137, has_started=True), FailureReason.CRASH_LOOP, "137", id="after it served"
        ),
    ],
)
def test_a_start_that_took_too_long_is_told_apart_from_a_crash(
    pod: Manifest, reason: FailureReason, says: str
) -> None:
    view = ClusterView()
    view.pods.put(pod)  # keeps what this needs
    [kept] = view.pods.objects.values()

    failure = classify(kept)

    assert failure is not None
    assert failure.reason is reason
    assert says in failure.message
