"""How far a pod is that starts as it should. Pure."""

from __future__ import annotations

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


def _stage(pod: Manifest) -> str:
    """The kubelet tells of a pull only by events; once the sandbox is there, nothing else can take long."""
    node, status = node_of(pod), pod.get("status", {})
    if node is None:
        return "waits for a node"
    if not is_set_up(pod):
        return f"has its volumes and network set up by node {node}"
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") == "ContainerCreating" and _has_sandbox(pod):
            return f"pulls image {container.get('image', '')} on node {node}"
        if "running" in container.get("state", {}):
            since = container["state"]["running"].get("startedAt", "")
            return f"downloads or loads its model{f' since {since}' if since else ''}"
    return f"is started by node {node}"


def _has_sandbox(pod: Manifest) -> bool:
    condition = condition_of(pod.get("status", {}), "PodReadyToStartContainers")
    return condition is not None and condition["status"] == "True"
