"""Does a resource have a front door, and how many requests may it send to a pod? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dllm_operator.api.v1alpha1 import DLLMDeploymentSpec, FrontDoor
from dllm_operator.cluster.labels import door_name, door_names, door_selector
from dllm_operator.cluster.observe import ChildKey, Manifest, Observed
from dllm_operator.tuning.pool_start import specified_setting
from dllm_operator.tuning.record import PoolTuning

SPARE = 1  # what a pod has in hand when a request ends


@dataclass(frozen=True, slots=True)
class DoorPlan:
    """``limits`` are requests at once that a door sends to a pod, by pool; ``most_pods`` what a pool may
    have. ``is_open``: the Service leads to it. ``hold_seconds``: how long a request waits for a first pod,
    None where none is to come."""

    name: str
    limits: Mapping[str, int]
    most_pods: Mapping[str, int]
    is_open: bool
    hold_seconds: int | None = None


def door_plan(
    name: str,
    spec: DLLMDeploymentSpec,
    limits: Mapping[str, int],
    most: Mapping[str, int],
    observed: Observed,
) -> DoorPlan | None:
    """Once open it stays so until it is no longer wanted: what waits in it would be lost by the way back."""
    if not is_wanted(spec, most):
        return None
    service = observed.children.get(ChildKey("Service", name))
    is_open = leads_to_door(service, name) or any(
        available_doors(each) for each in live_doors(name, observed)
    )
    return DoorPlan(door_name(name), limits, most, is_open, _hold_seconds(spec))


def is_wanted(spec: DLLMDeploymentSpec, most: Mapping[str, int]) -> bool:
    """Auto leaves it to what already deals out requests, or counts those that wait in the engines."""
    match spec.networking.front_door:
        case FrontDoor.ON:
            return True
        case FrontDoor.OFF | None:
            return is_scaled_here(spec)
    if is_scaled_here(spec):
        return True
    counts_waiting = spec.autoscaling is not None and spec.autoscaling.counts_waiting
    if spec.networking.inference_pool is not None or counts_waiting:
        return False
    return len(most) > 1 or sum(most.values()) > 1


def is_scaled_here(spec: DLLMDeploymentSpec) -> bool:
    """By the operator, which looks at the door for that."""
    return spec.autoscaling is not None and spec.autoscaling.is_builtin


def _hold_seconds(spec: DLLMDeploymentSpec) -> int | None:
    scaling = spec.autoscaling
    if scaling is None or not scaling.is_builtin or scaling.min_replicas > 0:
        return None
    patience = spec.networking.request_timeout_seconds
    return patience if scaling.hold_seconds is None else min(scaling.hold_seconds, patience)


def requests_at_once(tuning: PoolTuning | None, engine: Mapping[str, object]) -> int:
    """What an engine of the pool runs at once now."""
    if tuning is not None and tuning.state.generation > 0:
        return tuning.state.setting.max_num_seqs
    return specified_setting(engine).max_num_seqs


def limit_of(requests: int) -> int:
    """What the first door sends to a pod at once."""
    return requests + SPARE


def leads_to_door(service: Manifest | None, name: str) -> bool:
    return service is not None and service["spec"].get("selector") == door_selector(name)


def live_doors(name: str, observed: Observed) -> list[Manifest | None]:
    """The Deployments of the first door and of the second; None where one is not there."""
    return [observed.children.get(ChildKey("Deployment", numbered)) for numbered in door_names(name)]


def available_doors(deployment: Manifest | None) -> int:
    """Pods of the door that take requests."""
    return int((deployment or {}).get("status", {}).get("availableReplicas", 0))
