"""Which requests run in the next step, and in which phase. A pure decision over numbers; it knows no tensors.

Tokens are the currency. In order: whatever has waited ``aging_steps``, then reuse rows (they keep promises
already made), then refreshes from a deficit counter so that a burst of block ends spreads over steps, then
admissions first come first served.

Bound: an admitted request is served at least once every ``aging_steps + number of running requests`` steps,
because the oldest aged request goes first and every admitted request fits an empty step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Running(NamedTuple):
    """An admitted request: what its next step costs and how long ago it was last served."""

    slot: int
    is_refresh: bool
    tokens: int
    waited_steps: int


class Waiting(NamedTuple):
    """A queued request: its first refresh queries ``tokens``; ``pages`` are reserved for its whole life."""

    tokens: int
    pages: int
    waited_steps: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What one step may use. ``watermark_pages`` stay free when admitting, unless nothing runs."""

    token_budget: int
    refresh_share: float
    aging_steps: int
    free_slots: int
    free_pages: int
    watermark_pages: int = 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Slots by phase, the number of admitted requests (a prefix of the queue, all in REFRESH) and the
    deficit to carry."""

    refresh: tuple[int, ...]
    reuse: tuple[int, ...]
    admitted: int
    tokens: int
    deficit: float

    @property
    def is_empty(self) -> bool:
        return not (self.refresh or self.reuse or self.admitted)


class _Step:
    """A plan in the making."""

    def __init__(self, limits: Limits, deficit: float) -> None:
        self.limits = limits
        self.left = limits.token_budget
        self.allowance = deficit
        self.refresh: list[int] = []
        self.reuse: list[int] = []
        self.admitted = 0
        self.free_slots, self.free_pages = limits.free_slots, limits.free_pages

    def take(self, request: Running) -> None:
        self.left -= request.tokens
        if request.is_refresh:
            self.allowance -= request.tokens
            self.refresh.append(request.slot)
        else:
            self.reuse.append(request.slot)

    def can_admit(self, request: Waiting, *, runs_anything: bool) -> bool:
        floor = self.limits.watermark_pages if runs_anything else 0
        has_room = self.free_slots > 0 and self.free_pages - request.pages >= floor
        return has_room and request.tokens <= self.left

    def admit(self, request: Waiting) -> None:
        self.left -= request.tokens
        self.allowance -= request.tokens
        self.free_slots -= 1
        self.free_pages -= request.pages
        self.admitted += 1


def schedule(
    running: Sequence[Running], waiting: Iterable[Waiting], limits: Limits, deficit: float
) -> StepPlan:
    """Plan one step; ``tokens`` of the plan never exceed ``limits.token_budget``.

    ``deficit`` is the carried refresh allowance of the previous plan, 0 at the start. Every request of
    ``running`` and the head of ``waiting`` must fit an empty step; larger ones are refused when they arrive.
    """
    quantum = limits.refresh_share * limits.token_budget
    step = _Step(limits, min(deficit + quantum, float(limits.token_budget)))
    by_age = sorted(running, key=lambda request: -request.waited_steps)
    aged = [request for request in by_age if request.waited_steps >= limits.aging_steps]
    for request in aged:
        if request.tokens > step.left:
            break
        step.take(request)
    queue = iter(waiting)
    head = next(queue, None)
    if (
        head is not None
        and head.waited_steps >= limits.aging_steps
        and step.can_admit(head, runs_anything=bool(running))
    ):
        step.admit(head)
        head = next(queue, None)
    young = [request for request in by_age if request.waited_steps < limits.aging_steps]
    for request in young:
        if not request.is_refresh:
            if request.tokens > step.left:
                break
            step.take(request)
    if not step.reuse:
        step.allowance = float(limits.token_budget)  # nobody is kept waiting by a long step
    has_unmet_refresh = False
    for request in young:
        if request.is_refresh:
            if request.tokens > min(step.left, step.allowance):
                has_unmet_refresh = True
                break
            step.take(request)
    while head is not None and not has_unmet_refresh and step.can_admit(head, runs_anything=bool(running)):
        if head.tokens > step.allowance:
            has_unmet_refresh = True
            break
        step.admit(head)
        head = next(queue, None)
    return StepPlan(
        refresh=tuple(step.refresh),
        reuse=tuple(step.reuse),
        admitted=step.admitted,
        tokens=limits.token_budget - step.left,
        deficit=max(step.allowance, -float(limits.token_budget)) if has_unmet_refresh else 0.0,
    )
