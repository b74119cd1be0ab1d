"""(what was, a look at the door, pools) -> how many pods each pool is to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from dllm_operator.scaling.demand import Look, Served, demand
from dllm_operator.scaling.mix import Pods, Pool, cheapest, cost, grown, held, shrunk

EXCHANGE_AT = 1.15  # times the cost of the cheapest pods that would do
CALM_SHARE = 0.9  # of the stabilization window that has to be known before a pod goes


class ScalingReason(StrEnum):
    ENOUGH = "Enough"
    GROWS = "Grows"
    SHRINKS = "Shrinks"
    EXCHANGES = "Exchanges"  # cheaper pods come first; the dear ones go once those are ready
    SLEEPS = "Sleeps"
    AT_MOST = "AtMost"  # all that the bounds allow are not enough


@dataclass(frozen=True, slots=True)
class Rules:
    """``utilization`` is the share of what pods hold that steady load may fill. Pods go that were not needed
    for ``stabilization_seconds``, and even then not the last ``slack`` of what was needed. A queue is to be
    gone within ``drain_seconds``, some times what a pod takes to start. After ``idle_seconds`` without a
    request all pods go that ``Pool.fewest`` does not keep; None keeps one. Rates are means over
    ``memory_seconds``."""

    utilization: float = 1.0
    slack: float = 0.06
    stabilization_seconds: float = 300.0
    drain_seconds: float = 120.0
    idle_seconds: float | None = None
    memory_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class ScalingState:
    """``needs``: when, and how many requests were to be held, within the stabilization window."""

    looks: tuple[Look, ...] = ()
    served: Served = field(default_factory=Served)
    needs: tuple[tuple[float, float], ...] = ()
    busy_at: float | None = None
    grown_at: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """``need`` are the requests to hold at once."""

    pods: Mapping[str, int]
    reason: ScalingReason
    need: float


def decide(
    state: ScalingState, look: Look, pools: Sequence[Pool], pods: Pods, ready: Pods, rules: Rules
) -> tuple[ScalingState, Target]:
    """``pods`` are those asked for at present, ``ready`` how many of them answer."""
    at = look.at_seconds
    looks = (*(each for each in state.looks if at - rules.memory_seconds <= each.at_seconds < at), look)
    served = state.served.and_then(looks[-2], look) if len(looks) > 1 else state.served
    need = demand(looks, served).need(rules.utilization, rules.drain_seconds)
    needs = (*(each for each in state.needs if each[0] > at - rules.stabilization_seconds), (at, need))
    has_come = len(looks) > 1 and look.arrived != looks[-2].arrived
    is_busy = look.waiting > 0 or look.running > 0 or has_come
    busy_at = at if is_busy or state.busy_at is None else state.busy_at
    state = replace(state, looks=looks, served=served, needs=needs, busy_at=busy_at)
    target = _target(state, need, pools, pods, ready, rules, is_busy=is_busy)
    if any(target.pods[pool.name] > pods.get(pool.name, 0) for pool in pools):
        state = replace(state, grown_at=at)
    return state, target


def _target(
    state: ScalingState,
    need: float,
    pools: Sequence[Pool],
    pods: Pods,
    ready: Pods,
    rules: Rules,
    *,
    is_busy: bool,
) -> Target:
    at, _ = state.needs[-1]
    has = held(pools, pods)
    idle = at - (at if state.busy_at is None else state.busy_at)
    if rules.idle_seconds is not None and idle >= rules.idle_seconds:
        return Target({pool.name: pool.fewest for pool in pools}, ScalingReason.SLEEPS, need)
    one = min(pool.holds for pool in pools) if need > 0 or has > 0 or is_busy else 0.0
    more = grown(pools, pods, max(need, one))
    if held(pools, more) > has:
        return Target(more, ScalingReason.GROWS, need)
    if held(pools, more) < need:
        return Target(more, ScalingReason.AT_MOST, need)
    window = rules.stabilization_seconds
    lasting = max(one, *(each * (1 + rules.slack) for _, each in state.needs))
    since_growth = at - (state.needs[0][0] if state.grown_at is None else state.grown_at)
    if min(at - state.needs[0][0], since_growth) < CALM_SHARE * window:
        return Target(more, ScalingReason.ENOUGH, need)
    fewer = shrunk(pools, pods, lasting)
    stays = {name: min(count, ready.get(name, 0)) for name, count in fewer.items()}
    if held(pools, fewer) < has and held(pools, stays) >= min(lasting, held(pools, ready)):
        return Target(fewer, ScalingReason.SHRINKS, need)
    best = cheapest(pools, lasting)
    if cost(pools, best) * EXCHANGE_AT < cost(pools, pods):
        both = {pool.name: max(pods.get(pool.name, 0), best[pool.name]) for pool in pools}
        return Target(both, ScalingReason.EXCHANGES, need)
    return Target(more, ScalingReason.ENOUGH, need)
