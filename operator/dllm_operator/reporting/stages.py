"""How far a pod is that starts as it should, or why one that runs is not ready. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from dllm_operator.cluster.labels import KEYS_VOLUME
from dllm_operator.cluster.observe import Manifest, condition_of
from dllm_operator.cluster.placement import is_leaving, node_of
from dllm_operator.cluster.pod_setup import is_set_up
from dllm_operator.reporting.failures import classify, is_serving


def starting(pods: tuple[Manifest, ...]) -> str:
    """What the first pod that does not serve yet is at, "" where all serve or fail."""
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        if not is_leaving(pod) and not is_serving(pod) and classify(pod) is None:
            return f"pod {pod['metadata']['name']} {_stage(pod)}"
    return ""


def has_lapsed(pods: Iterable[Manifest]) -> bool:
    """Whether a pod runs on that was ready and is not any more."""
    return any(_has_lapsed(pod) for pod in pods if not is_leaving(pod))


def _has_lapsed(pod: Manifest) -> bool:
    """By when it became not ready: after its container had begun to run, so after it was ready."""
    ready = condition_of(pod.get("status", {}), "Ready")
    if ready is None or ready["status"] == "True" or "lastTransitionTime" not in ready:
        return False
    since = datetime.fromisoformat(ready["lastTransitionTime"])
    began = [state["startedAt"] for state in _up(pod) if "startedAt" in state]
    return any(datetime.fromisoformat(moment) < since for moment in began)


def _up(pod: Manifest) -> list[dict[str, Any]]:
    """Of its containers that run and have answered their startup probe."""
    containers = pod.get("status", {}).get("containerStatuses", ())
    states = [each.get("state", {}).get("running") for each in containers if each.get("started")]
    return [state for state in states if state is not None]


def _stage(pod: Manifest) -> str:
    """The kubelet tells of a pull only by events; once the sandbox is there, nothing else can take long."""
    node, status = node_of(pod), pod.get("status", {})
    if node is None:
        return "waits for a node"
    if not is_set_up(pod):
        return f"has its volumes and network set up by node {node}"
    if _up(pod):
        return f"runs but is not ready: {_hindrance(pod)}"
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") == "ContainerCreating" and _has_sandbox(pod):
            return f"pulls image {container.get('image', '')} on node {node}"
        if "running" in container.get("state", {}):
            since = container["state"]["running"].get("startedAt", "")
            return f"downloads or loads its model{f' since {since}' if since else ''}"
    return f"is started by node {node}"


def _hindrance(pod: Manifest) -> str:
    for volume in pod.get("spec", {}).get("volumes", ()):
        if volume["name"] == KEYS_VOLUME and "secret" in volume:
            secret = volume["secret"]
            key = secret["items"][0]["key"] if secret.get("items") else "keys"
            return f"Secret {secret['secretName']} may hold no API key under '{key}'; its log says what it is"
    return "its log says why"


def _has_sandbox(pod: Manifest) -> bool:
    condition = condition_of(pod.get("status", {}), "PodReadyToStartContainers")
    return condition is not None and condition["status"] == "True"
