"""Which pods, of pools that differ in cost and in what a pod can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil

Pods = Mapping[str, int]  # by pool


@dataclass(frozen=True, slots=True)
class Pool:
    """``holds`` are the requests that one pod serves at once, as the fastest pool's pods do: of a pool half
    as fast, half of what its engine runs. ``cost`` is a pod's, in any unit that all pools share."""

    name: str
    holds: float
    cost: float = 1.0
    fewest: int = 0
    most: int = 1

    @property
    def cost_of_one_held(self) -> float:
        return self.cost / self.holds


def held(pools: Sequence[Pool], pods: Pods) -> float:
    return sum(pods.get(pool.name, 0) * pool.holds for pool in pools)


def cost(pools: Sequence[Pool], pods: Pods) -> float:
    return sum(pods.get(pool.name, 0) * pool.cost for pool in pools)


def cheapest(pools: Sequence[Pool], need: float) -> dict[str, int]:
    """Pods that hold ``need`` requests within each pool's bounds, as cheap as whole pods of one kind after
    the other allow; all that the bounds allow where even those hold less."""
    order = sorted(pools, key=lambda pool: (pool.cost_of_one_held, pool.holds, pool.name))
    least = {pool.name: pool.fewest for pool in pools}
    rest = need - held(pools, least)

    @cache
    def fill(index: int, rest: float) -> tuple[float, float, tuple[int, ...]]:
        """What is left over, the cost and the pods more, of the pools from ``index`` on."""
        if index == len(order) or rest <= 0:
            return max(rest, 0.0), 0.0, (0,) * (len(order) - index)
        pool = order[index]
        room = pool.most - pool.fewest
        enough = min(ceil(rest / pool.holds), room)
        found = []
        for pods in {enough, max(enough - 1, 0)}:
            left, price, others = fill(index + 1, rest - pods * pool.holds)
            found.append((left, price + pods * pool.cost, (pods, *others)))
        return min(found)

    _, _, more = fill(0, rest)
    return {pool.name: pool.fewest + pods for pool, pods in zip(order, more, strict=True)}


def grown(pools: Sequence[Pool], pods: Pods, need: float) -> dict[str, int]:
    """The cheapest addition to ``pods`` with which ``need`` requests are held."""
    kept = [
        Pool(
            pool.name,
            pool.holds,
            pool.cost,
            min(max(pods.get(pool.name, 0), pool.fewest), pool.most),
            pool.most,
        )
        for pool in pools
    ]
    return cheapest(kept, need)


def shrunk(pools: Sequence[Pool], pods: Pods, need: float) -> dict[str, int]:
    """``pods`` without those that ``need`` requests can do without, the dearest for what they hold first;
    those that belong to the cheapest pods for ``need`` stay."""
    best = cheapest(pools, need)
    left = {pool.name: min(max(pods.get(pool.name, 0), pool.fewest), pool.most) for pool in pools}
    spare = held(pools, left) - need
    for pool in sorted(pools, key=lambda pool: (-pool.cost_of_one_held, -pool.holds, pool.name)):
        gone = min(max(left[pool.name] - best[pool.name], 0), int(max(spare, 0.0) / pool.holds + 1e-9))
        left[pool.name] -= gone
        spare -= gone * pool.holds
    return left
