"""What a node does before a pod's first container: mount its volumes, set up its network. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from dllm_operator.cluster.observe import Manifest, condition_of

SET_UP_SECONDS = 30.0  # that a node may take
MOUNTS = (
    ("secret", "Secret", "secretName"),
    ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
    ("configMap", "ConfigMap", "name"),
)
"""Kinds of volumes that name another object: field, kind, the name's field."""


def is_set_up(pod: Manifest) -> bool:
    """False while its node mounts volumes and makes the sandbox; image pulls come after that. True where the
    kubelet does not say."""
    status = pod.get("status", {})
    condition = condition_of(status, "PodReadyToStartContainers")
    return status.get("phase") != "Pending" or condition is None or condition["status"] != "False"


def is_late(pod: Manifest, at: datetime) -> bool:
    """Whether its node should have set it up by then."""
    return not is_set_up(pod) and at >= _scheduled_at(pod) + timedelta(seconds=SET_UP_SECONDS)


def mounts(pod: Manifest) -> str:
    """What of other objects the pod mounts, as ``Secret NAME``; first what the operator does not make."""
    named = [
        f"{kind} {volume[field][key]}"
        for field, kind, key in MOUNTS
        for volume in pod.get("spec", {}).get("volumes", ())
        if field in volume
    ]
    return ", ".join(named) or "its volumes"


def _scheduled_at(pod: Manifest) -> datetime:
    """When it got its node; when it was made, if nobody says."""
    condition = condition_of(pod.get("status", {}), "PodScheduled") or {}
    return datetime.fromisoformat(condition.get("lastTransitionTime") or pod["metadata"]["creationTimestamp"])
