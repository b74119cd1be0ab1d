"""What the cluster looks like to one resource: the input of plan and status, taken at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from dllm_operator.cluster.labels import COMPONENT, DOOR, POOL
from dllm_operator.cluster.pools import GpuType, Node
from dllm_operator.scaling.record import Scaling
from dllm_operator.tuning.profile import Profile
from dllm_operator.tuning.record import PoolTuning

Manifest = dict[str, Any]


class Integration(StrEnum):
    """Kinds of other projects, made only where their CRDs exist."""

    SCALED_OBJECT = "ScaledObject"
    POD_MONITOR = "PodMonitor"
    INFERENCE_POOL = "InferencePool"


def condition_of(status: Manifest, kind: str) -> Manifest | None:
    """That condition in the status of a live object, None where nobody has written it."""
    conditions: list[Manifest] = status.get("conditions") or []  # null in a new CRD
    return next((condition for condition in conditions if condition["type"] == kind), None)


def holds(body: Manifest, kind: str) -> bool:
    """Whether that condition of a live object is True."""
    condition = condition_of(body.get("status", {}), kind)
    return condition is not None and condition["status"] == "True"


@dataclass(frozen=True, slots=True)
class ChildKey:
    """A child's kind and name; all live in the resource's namespace."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Observed:
    """``children`` are live manifests that the resource owns; ``autoscaled`` names Deployments
    that an autoscaler targets; ``claims`` are the access modes of the author's claims that exist;
    ``pool_order`` is that of the last status, so that new pools come last. ``at`` is that moment; ``tunings``
    are the resource's by pool, ``profiles`` what all resources have taught; ``server_image`` is that of
    resources that name none; ``scaling`` is what the operator asks for where it scales."""

    gpu_types: tuple[GpuType, ...] = ()
    nodes: Mapping[str, Node] = field(default_factory=dict)
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lost_nodes: frozenset[str] = frozenset()
    children: Mapping[ChildKey, Manifest] = field(default_factory=dict)
    pods: tuple[Manifest, ...] = ()
    autoscaled: frozenset[str] = frozenset()
    integrations: frozenset[Integration] = frozenset()
    pool_order: tuple[str, ...] = ()
    tunings: Mapping[str, PoolTuning] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    server_image: str = ""
    scaling: Scaling = field(default_factory=Scaling)
    at: datetime | None = None

    def pods_of(self, pool: str) -> list[Manifest]:
        """Those of that pool, on their way out or not."""
        return [pod for pod in self.pods if pod["metadata"].get("labels", {}).get(POOL) == pool]

    def deployments(self) -> dict[str, Manifest]:
        """Live Deployments of pools by name."""
        return {
            key.name: body
            for key, body in self.children.items()
            if key.kind == "Deployment" and body["metadata"].get("labels", {}).get(COMPONENT) != DOOR
        }
