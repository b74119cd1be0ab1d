"""What keeps a rollout from going on, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from dllm_operator.cluster.observe import Observed
from dllm_operator.planning.plan import PoolPlan
from dllm_operator.planning.rollout import blocked


def rollout_blocked(pools: Iterable[PoolPlan], observed: Observed) -> str | None:
    """The first pool whose new pod finds no room while none of the old ones may go for it, with the remedy;
    None where every rollout goes on."""
    for pool in pools:
        now = blocked(observed.pods_of(pool.name), observed.nodes)
        if now is None or pool.strategy.makes_room:
            continue
        what = f"pool {pool.name}: new pod {now.pod} finds no room beside those that serve ({now.said})"
        if pool.strategy.is_fixed:
            remedy = (
                f"podTemplate.rollingUpdate fixes maxSurge {pool.strategy.max_surge} and maxUnavailable 0: "
                "make room for a pod, or set mode Auto, or maxSurge 0 and maxUnavailable 1"
            )
        else:
            remedy = (
                "and none of them can go for it: it asks for other nodes or for more than they have, or "
                "their nodes take no new pods; make room for it, or change the pod template back"
            )
        return f"{what}; {remedy}"
    return None
