"""Which pods may mount the claims of a resource at the same time. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum

from dllm_operator.api.model import AccessMode
from dllm_operator.api.v1alpha1 import DLLMDeploymentSpec
from dllm_operator.cluster.labels import cache_claim_name
from dllm_operator.cluster.resource import claim_names


class Reach(IntEnum):
    """Who may mount a claim at once, the narrowest first."""

    ONE_POD = 0
    ONE_NODE = 1
    MANY_NODES = 2


_REACH = {
    "ReadWriteMany": Reach.MANY_NODES,
    "ReadOnlyMany": Reach.MANY_NODES,
    "ReadWriteOnce": Reach.ONE_NODE,
    "ReadWriteOncePod": Reach.ONE_POD,
}


@dataclass(frozen=True, slots=True)
class Mounted:
    """A claim that every pod of a resource mounts."""

    name: str
    reach: Reach
    remedy: str


def narrowest(name: str, spec: DLLMDeploymentSpec, known: Mapping[str, Collection[str]]) -> Mounted | None:
    """The claim of resource ``name`` that holds its pods together most, None where all nodes may mount all.
    ``known`` are access modes of the namespace's claims; one that does not exist yet holds nothing."""
    cache, mounted = spec.model.cache, []
    if cache is not None and cache.size is not None and cache.access_mode is AccessMode.ONE_NODE:
        remedy = "set model.cache.accessMode to ReadWriteMany"
        mounted.append(Mounted(cache_claim_name(name), Reach.ONE_NODE, remedy))
    for claim in claim_names(spec):
        reach = max((_REACH.get(mode, Reach.MANY_NODES) for mode in known.get(claim, ())), default=None)
        if reach is not None and reach is not Reach.MANY_NODES:
            mounted.append(Mounted(claim, reach, "use a claim that is ReadWriteMany or ReadOnlyMany"))
    return min(mounted, key=lambda claim: (claim.reach, claim.name), default=None)


def claim_problem(claim: Mounted | None, pools: Mapping[str, int], max_surge: int) -> str | None:
    """What cannot be, in one sentence, given the most pods of each pool and what a rollout adds to one."""
    if claim is None:
        return None
    served = [pool for pool, pods in pools.items() if pods > 0]
    pods = sum(pools.values())
    match claim.reach:
        case Reach.ONE_NODE if len(served) > 1:
            return (
                f"claim {claim.name} is ReadWriteOnce, which the pods of one node can mount, and pools "
                f"{', '.join(served)} have nodes of their own: {claim.remedy}, or keep one pool"
            )
        case Reach.ONE_POD if pods > 1:
            return (
                f"claim {claim.name} is ReadWriteOncePod, which one pod can mount, and up to {pods} are "
                f"asked for: {claim.remedy}, or ask for one pod"
            )
        case Reach.ONE_POD if max_surge > 0:
            return (
                f"claim {claim.name} is ReadWriteOncePod, which one pod can mount, and "
                f"podTemplate.rollingUpdate.maxSurge {max_surge} adds another: set it to 0 and "
                "maxUnavailable to 1, or mode to Auto"
            )
    return None
