"""What keeps a rollout from going on, or from beginning, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from dllm_operator.cluster.observe import Observed
from dllm_operator.planning.plan import PoolPlan
from dllm_operator.planning.rollout import blocked
from dllm_operator.planning.rollout_record import Cause
from dllm_operator.planning.turns import Verdict


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


def rolled_back(pools: Iterable[PoolPlan]) -> str | None:
    """The first pool that went back to its former template, what it went back from, and how to try again."""
    for pool in pools:
        step = pool.step
        if step is None or step.verdict not in (Verdict.BACK, Verdict.UNDONE) or step.record is None:
            continue
        undone = step.record.undone
        if undone is None:
            continue
        what = f"the release {undone.release}" if undone.cause is Cause.RELEASE else "its newest settings"
        why = f" ({undone.why})" if undone.why else ""
        return (
            f"pool {pool.name}: new pods with {what} did not become ready in time{why}; it is back at its "
            "former template. Any change of its pod template tries again"
        )
    return None


def stopped(pools: Iterable[PoolPlan], namespace: str) -> str | None:
    """Pools that do not follow another one, which failed with the same release; named within its namespace
    only."""
    names, other = _held(pools, Verdict.STOPPED)
    if not names:
        return None
    place, _, name = other.partition("/")
    who = f"Deployment {name}" if place == namespace else "a pool of another namespace"
    return (
        f"pools {', '.join(names)} keep their template: {who} did not become ready with the newest default "
        "image or operator, and went back"
    )


def queued(pools: Iterable[PoolPlan]) -> str | None:
    """Pools that wait for their turn."""
    names, _ = _held(pools, Verdict.QUEUED)
    return f"pools {', '.join(names)} wait for their turn to roll out" if names else None


def paused(pools: Iterable[PoolPlan]) -> str:
    """Of a resource that its author has paused."""
    names, _ = _held(pools, Verdict.PAUSED)
    return f"spec.rollout.pause holds a change of pools {', '.join(names)}" if names else "nothing is held"


def followers(pools: Iterable[PoolPlan]) -> str:
    """Pools that come after another one of the resource, as the end of a sentence; "" without any."""
    names, other = _held(pools, Verdict.FOLLOW)
    return f"; pools {', '.join(names)} follow pool {other}" if names else ""


def _held(pools: Iterable[PoolPlan], verdict: Verdict) -> tuple[list[str], str]:
    """Names, and the pool that they wait for."""
    found = [(pool.name, pool.step.other) for pool in pools if pool.step and pool.step.verdict is verdict]
    return [name for name, _ in found], found[0][1] if found else ""
