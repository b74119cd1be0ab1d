"""How a pool replaces its pods: a new one beside the old ones, or in the place of one. Pure.

The scheduler knows best what is free, other tenants' pods included: a rollout begins with a new pod beside
the old ones, and where that finds no node, an old one makes room. Pods on their way out are waited for first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dllm_operator.api.pod_template import RollingUpdate
from dllm_operator.cluster.labels import TUNING_RESTART
from dllm_operator.cluster.observe import Manifest, condition_of
from dllm_operator.cluster.placement import (
    could_replace,
    has_place,
    is_leaving,
    node_of,
    requests_of,
    why_unplaced,
)
from dllm_operator.cluster.pools import Node

TEMPLATE = "pod-template-hash"  # label of the Deployment's controller
REVISION = "deployment.kubernetes.io/revision"  # annotation of the Deployment's controller
_QUOTA = "exceeded quota"  # of the refusals, the one that the end of an old pod helps


@dataclass(frozen=True, slots=True)
class Strategy:
    """Of a Deployment; ``is_fixed`` by the resource's author."""

    max_surge: int
    max_unavailable: int
    is_fixed: bool = False

    @property
    def makes_room(self) -> bool:
        """Whether an old pod may go before a new one serves."""
        return self.max_unavailable > 0


BESIDE = Strategy(1, 0)
IN_PLACE = Strategy(0, 1)


@dataclass(frozen=True, slots=True)
class Blocked:
    """A new pod that finds no node while old ones stay. ``said`` are the scheduler's words; ``could_replace``
    says that it would fit in the place of an old one."""

    pod: str
    said: str
    could_replace: bool


def awaiting_room(pods: Sequence[Manifest]) -> list[Manifest]:
    """Pods without a node beyond those for which pods on their way out make room; the newest last."""
    unplaced = [pod for pod in pods if not is_leaving(pod) and why_unplaced(pod) is not None]
    leaving = sum(is_leaving(pod) and has_place(pod) for pod in pods)
    return sorted(unplaced, key=lambda pod: (pod["metadata"]["creationTimestamp"], _name(pod)))[leaving:]


def blocked(pods: Sequence[Manifest], nodes: Mapping[str, Node]) -> Blocked | None:
    """Of one pool's pods; None where its rollout goes on, or where there is none."""
    waiting = awaiting_room(pods)
    if not waiting:
        return None
    new = waiting[-1]
    old = [p for p in pods if not is_leaving(p) and has_place(p) and _template(p) != _template(new)]
    if not old:
        return None
    fits = any(could_replace(new, pod, nodes.get(node_of(pod) or "")) for pod in old)
    return Blocked(_name(new), why_unplaced(new) or "", fits)


def choose(
    rolling: RollingUpdate,
    live: Manifest | None,
    pods: Sequence[Manifest],
    nodes: Mapping[str, Node],
    *,
    is_one_pod: bool = False,
) -> Strategy:
    """For one pool as it is. ``is_one_pod``: a volume that two pods cannot mount at once."""
    if rolling.numbers is not None:
        return Strategy(*rolling.numbers, is_fixed=True)
    if is_one_pod:
        return IN_PLACE
    now = blocked(pods, nodes)
    if now is not None and now.could_replace:
        return IN_PLACE
    if live is not None and _is_over_quota(live, pods):
        return IN_PLACE
    # What a rollout has begun with it ends with: a change of mind between two pods would add a third.
    return IN_PLACE if live is not None and _is_in_place(live) and not is_complete(live) else BESIDE


def refusal(live: Manifest) -> str | None:
    """Why the API server lets no pod of a Deployment come into being, in its words; None where it does."""
    condition = condition_of(live.get("status", {}), "ReplicaFailure")
    if condition is None or condition["status"] != "True":
        return None
    return condition.get("message") or condition.get("reason") or "refused"


class Progress(StrEnum):
    """Of a Deployment's newest template."""

    ROLLING = "Rolling"
    LATE = "Late"  # its deadline is over
    SETTLED = "Settled"  # came to its end; pods may have failed since


def progress(live: Manifest) -> Progress:
    """As the Deployment's controller says."""
    status = live.get("status", {})
    reason = (condition_of(status, "Progressing") or {}).get("reason")
    if _is_observed(live) and reason == "ProgressDeadlineExceeded":
        return Progress.LATE
    is_updated = status.get("updatedReplicas", 0) == status.get("replicas", 0)
    if _is_observed(live) and is_updated and reason == "NewReplicaSetAvailable":
        return Progress.SETTLED
    return Progress.ROLLING


def is_complete(live: Manifest) -> bool:
    """Whether every pod of a Deployment is of its newest template and available."""
    status, wanted = live.get("status", {}), live["spec"].get("replicas", 1)
    counts = (status.get(f"{which}eplicas", 0) for which in ("r", "updatedR", "availableR"))
    return _is_observed(live) and all(count == wanted for count in counts)


def is_restarting(live: Manifest | None, restart_generation: int) -> bool:
    """Whether pods of before the tuner's restart of that generation are left."""
    if restart_generation == 0:
        return False
    if live is None:
        return True
    template = live["spec"].get("template", {}).get("metadata", {})
    status = live.get("status", {})
    is_told = template.get("annotations", {}).get(TUNING_RESTART) == str(restart_generation)
    is_updated = status.get("updatedReplicas", 0) == status.get("replicas", 0)
    return not (is_told and is_updated and _is_observed(live))


def restart_hindrance(strategy: Strategy, wanted: int, free: int | None) -> str | None:
    """Why a restart that nobody asked for should wait: it could not be placed, or would take the only pod
    away. ``free`` is the most pods that find room beside those that run, None if nobody knows."""
    if strategy.max_surge > 0 and (free is None or free > 0):
        return None
    if strategy.is_fixed:
        return None if strategy.makes_room else "room for a new pod, which rollingUpdate wants beside the old"
    return None if wanted > 1 else "room for a new pod: the pool's only one would have to go first"


def _is_over_quota(live: Manifest, pods: Sequence[Manifest]) -> bool:
    """Whether a quota refuses the new pods of a rollout, and the end of an old one would leave enough."""
    status = live.get("status", {})
    if _QUOTA not in (refusal(live) or "") or status.get("updatedReplicas", 0) >= status.get("replicas", 0):
        return False
    wanted = requests_of(live["spec"].get("template", {})).items()
    placed = [requests_of(pod) for pod in pods if not is_leaving(pod) and has_place(pod)]
    return any(all(amount <= left.get(name, 0) for name, amount in wanted) for left in placed)


def _is_in_place(live: Manifest) -> bool:
    numbers = live["spec"].get("strategy", {}).get("rollingUpdate", {})
    return bool(numbers.get("maxSurge") == 0)


def _is_observed(live: Manifest) -> bool:
    generation: int = live["metadata"].get("generation", 0)
    return bool(live.get("status", {}).get("observedGeneration", 0) >= generation)


def _template(pod: Manifest) -> str | None:
    label: str | None = pod["metadata"].get("labels", {}).get(TEMPLATE)
    return label


def _name(pod: Manifest) -> str:
    return str(pod["metadata"]["name"])
