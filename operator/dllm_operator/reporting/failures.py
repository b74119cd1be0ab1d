"""Why a pod does not serve, or why there is none: one failure a pod, from an ordered list of classes. Pure.

Order: what the kernel or the device says first, then what kept the container from starting, then crashes,
then pods that may not be made, then where the pod stands. Only pods that are not ready have a failure, so
recovery clears it.

What a container, its runtime or a registry says is never repeated, since it may hold values of Secrets: it is
recognised, or left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dllm_server.termination import DEVICE_OUT_OF_MEMORY_EXIT_CODE, Termination, TerminationReason

from dllm_operator.cluster.labels import POOL
from dllm_operator.cluster.observe import Manifest, condition_of, holds
from dllm_operator.cluster.pod_setup import is_late, mounts
from dllm_operator.planning.rollout import refusal
from dllm_operator.reporting.node_words import recognised
from dllm_operator.reporting.reason import FailureReason

MAX_MESSAGE = 512
PROBE_SLACK_SECONDS = 5  # the first probe comes before its period is over
_TOLD_TO_END = (0, 137, 143)  # by SIGTERM, or by SIGKILL after it


@dataclass(frozen=True, slots=True)
class Failure:
    """Of the pod or the pool ``name``."""

    reason: FailureReason
    message: str
    name: str
    kind: str = "pod"

    @property
    def rank(self) -> int:
        return list(FailureReason).index(self.reason)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.message}"


_PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_START = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError")
_START_EXITS = ("StartError", "ContainerCannotRun")


def worst_failure(
    pods: Iterable[Manifest], lost_nodes: frozenset[str] = frozenset(), at: datetime | None = None
) -> Failure | None:
    """The first class in the order that any of `pods` shows; without a time nothing is overdue."""
    known = tuple(pods)
    current = [pod for pod in known if not _is_replaced(pod, known)]
    failures = [failure for pod in current if (failure := classify(pod, lost_nodes, at)) is not None]
    return worst(failures)


def worst(failures: Iterable[Failure]) -> Failure | None:
    """The first in the order; of several, always the same one."""
    return min(failures, key=lambda failure: (failure.rank, failure.name), default=None)


def pods_refused(live: Manifest) -> Failure | None:
    """Of a Deployment whose pods the API server does not let come into being, in the API server's words."""
    words = refusal(live)
    if words is None:
        return None
    pool = live["metadata"].get("labels", {}).get(POOL, live["metadata"]["name"])
    return Failure(FailureReason.PODS_REFUSED, shorten(words), pool, "pool")


def classify(
    pod: Manifest, lost_nodes: frozenset[str] = frozenset(), at: datetime | None = None
) -> Failure | None:
    """The pod's failure, or None while it is ready, starting as it should, or on its way out."""
    status: dict[str, Any] = pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"] or is_serving(pod):
        return None
    for look in (
        _oom_killed,
        _cuda_out_of_memory,
        _image_pull,
        _start_failed,
        _crash_loop,
        _given_up,
        _unschedulable,
    ):
        found = look(status)
        if found is not None and found[0] is FailureReason.CRASH_LOOP:
            found = _start_timed_out(pod) or found
        if found is not None:
            return Failure(found[0], shorten(found[1]), pod["metadata"]["name"])
    node = pod.get("spec", {}).get("nodeName")
    if node in lost_nodes:
        return Failure(FailureReason.NODE_LOST, f"node {node} is not ready", pod["metadata"]["name"])
    if at is not None and is_late(pod, at):
        late = f"node {node} has not mounted {mounts(pod)} or not set up the network"
        message = f"{late}: the pod's events say which"
        return Failure(FailureReason.VOLUMES_NOT_MOUNTED, message, pod["metadata"]["name"])
    return None


@dataclass(frozen=True, slots=True)
class MemoryEnd:
    """A container that ended for want of memory; ``finished_at`` as the kubelet wrote it, which sorts."""

    finished_at: str
    is_host: bool


def memory_ends(pods: Iterable[Manifest]) -> list[MemoryEnd]:
    """The last one of every container, whether it runs again or not."""
    found = []
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses", ()):
            for state in (container.get("state", {}), container.get("lastState", {})):
                ended = state.get("terminated")
                if ended is None:
                    continue
                is_host = _is_oom_killed(ended)
                if is_host or _device_refusal(ended) is not None:
                    found.append(MemoryEnd(ended.get("finishedAt", ""), is_host))
    return found


def is_serving(pod: Manifest) -> bool:
    """Ready by its condition and by its containers, and not on its way out."""
    status: dict[str, Any] = pod.get("status", {})
    are_running = all(container.get("ready", False) for container in status.get("containerStatuses", ()))
    return holds(pod, "Ready") and are_running and "deletionTimestamp" not in pod["metadata"]


def _is_replaced(pod: Manifest, pods: Iterable[Manifest]) -> bool:
    """Whether the pod has ended for good, as evicted ones do, and a later one of its pool serves."""
    if pod.get("status", {}).get("phase") != "Failed":
        return False
    pool, born = pod["metadata"].get("labels", {}).get(POOL), pod["metadata"].get("creationTimestamp", "")
    return any(
        is_serving(other)
        and other["metadata"].get("labels", {}).get(POOL) == pool
        and other["metadata"].get("creationTimestamp", "") >= born
        for other in pods
    )


def shorten(text: str, limit: int = MAX_MESSAGE) -> str:
    """The end of a long text: crashes say what happened last."""
    text = text.strip()
    return text if len(text) <= limit else "..." + text[-(limit - 3) :]


Found = tuple[FailureReason, str] | None


def _oom_killed(status: dict[str, Any]) -> Found:
    for container, ended in _ends(status):
        if _is_oom_killed(ended):
            message = (
                f"container {container['name']} exceeded its memory limit and was killed: raise the limit"
            )
            return FailureReason.OOM_KILLED, f"{message} (restarts: {container.get('restartCount', 0)})"
    return None


def _is_oom_killed(ended: dict[str, Any]) -> bool:
    return ended.get("reason") == "OOMKilled"


def _cuda_out_of_memory(status: dict[str, Any]) -> Found:
    for _, ended in _ends(status):
        text = _device_refusal(ended)
        if text is not None:
            return FailureReason.CUDA_OUT_OF_MEMORY, text
    return None


def _device_refusal(ended: dict[str, Any]) -> str | None:
    """What a container said that ended because the device ran out of memory; None if it did not."""
    termination = Termination.parse(ended.get("message", ""))
    is_told = termination is not None and termination.reason is TerminationReason.DEVICE_OUT_OF_MEMORY
    if not is_told and ended.get("exitCode") != DEVICE_OUT_OF_MEMORY_EXIT_CODE:
        return None
    return termination.message if termination else "the device ran out of memory"


def _image_pull(status: dict[str, Any]) -> Found:
    return _waiting(status, _PULL, FailureReason.IMAGE_PULL_FAILED)


def _start_failed(status: dict[str, Any]) -> Found:
    waiting = _waiting(status, _START, FailureReason.START_FAILED)
    if waiting is not None:
        return waiting
    for _, ended in _ends(status):
        termination = Termination.parse(ended.get("message", ""))
        if termination is not None and termination.reason in (
            TerminationReason.START_FAILED,
            TerminationReason.BUDGET_EXCEEDED,
        ):
            return FailureReason.START_FAILED, termination.message
        if ended.get("reason") in _START_EXITS:
            return FailureReason.START_FAILED, recognised(ended["reason"], ended.get("message", ""))
    return None


def _crash_loop(status: dict[str, Any]) -> Found:
    if _given_up(status) is not None:  # which also ends the containers
        return None
    for container, ended in _ends(status):
        if ended.get("exitCode", 0) == 0 and container.get("restartCount", 0) == 0:
            continue
        said = Termination.parse(ended.get("message", ""))
        text = said.message if said else "the container's log says why"
        code, restarts = ended.get("exitCode"), container.get("restartCount", 0)
        return FailureReason.CRASH_LOOP, f"exit code {code} after {restarts} restarts: {text}"
    return None


def _start_timed_out(pod: Manifest) -> Found:
    """Ended by the kubelet, since it did not serve within what its startup probe allows."""
    specs = pod.get("spec", {}).get("containers", ())
    probes = [probe for each in specs if (probe := each.get("startupProbe"))]
    allowed = max((p.get("failureThreshold", 3) * p.get("periodSeconds", 10) for p in probes), default=None)
    for container, ended in _ends(pod.get("status", {})):
        began, over = ended.get("startedAt"), ended.get("finishedAt")
        if allowed is None or container.get("started") or not began or not over:
            continue
        lasted = (datetime.fromisoformat(over) - datetime.fromisoformat(began)).total_seconds()
        if ended.get("exitCode") in _TOLD_TO_END and lasted >= allowed - PROBE_SLACK_SECONDS:
            text = (
                f"did not serve within {allowed} s and was restarted: raise "
                "podTemplate.startupTimeoutSeconds, or keep downloads with model.cache"
            )
            return FailureReason.START_FAILED, text
    return None


def _given_up(status: dict[str, Any]) -> Found:
    """By the kubelet: evicted, refused for a device that it cannot give, ended with its node."""
    reason = status.get("reason")
    if status.get("phase") != "Failed" or not reason:
        return None
    if reason == "Evicted":
        return FailureReason.EVICTED, status.get("message", "evicted")
    return FailureReason.POD_FAILED, f"{reason}: {status.get('message', 'no message')}"


def _unschedulable(status: dict[str, Any]) -> Found:
    condition = condition_of(status, "PodScheduled")
    if condition is None or condition["status"] != "False":
        return None
    return FailureReason.UNSCHEDULABLE, condition.get("message") or condition.get("reason", "")


def _containers(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that may hold the pod back; an init container that has ended well, however late, does not."""
    init = [container for container in status.get("initContainerStatuses", ()) if not _is_done(container)]
    return [*init, *status.get("containerStatuses", ())]


def _is_done(container: dict[str, Any]) -> bool:
    ended: dict[str, Any] = container.get("state", {}).get("terminated", {})
    return ended.get("exitCode") == 0


def _ends(status: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Containers with how they ended: now, or before the restart that is under way."""
    ends = []
    for container in _containers(status):
        for state in (container.get("state", {}), container.get("lastState", {})):
            if "terminated" in state:
                ends.append((container, state["terminated"]))
                break
    return ends


def _waiting(status: dict[str, Any], reasons: tuple[str, ...], failure: FailureReason) -> Found:
    for container in _containers(status):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in reasons:
            image = container.get("image", "") if failure is FailureReason.IMAGE_PULL_FAILED else ""
            return failure, recognised(waiting["reason"], waiting.get("message", ""), image)
    return None
