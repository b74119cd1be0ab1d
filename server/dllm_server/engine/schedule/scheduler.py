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
from itertools import chain
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
    deficit to carry. ``is_tight``: a request could have run but for its tokens."""

    refresh: tuple[int, ...]
    reuse: tuple[int, ...]
    admitted: int
    tokens: int
    deficit: float
    is_tight: bool

    @property
    def is_empty(self) -> bool:
        return not (self.refresh or self.reuse or self.admitted)


class _Step:
    """A plan in the making. ``allowance`` is what refreshes may still take."""

    def __init__(self, limits: Limits, deficit: float, *, runs_anything: bool) -> None:
        self.limits = limits
        self.left = limits.token_budget
        self.allowance = min(deficit + limits.refresh_share * limits.token_budget, float(limits.token_budget))
        self.refresh: list[int] = []
        self.reuse: list[int] = []
        self.admitted = 0
        self.has_unmet_refresh = False
        self.is_tight = False
        self._free_slots, self._free_pages = limits.free_slots, limits.free_pages
        self._page_floor = limits.watermark_pages if runs_anything else 0

    def take_aged(self, aged: Iterable[Running]) -> None:
        for request in aged:
            if not self._fits(request, self.left):
                return
            self._take(request)

    def take_reuse(self, young: Iterable[Running]) -> None:
        for request in young:
            if not request.is_refresh:
                if not self._fits(request, self.left):
                    return
                self._take(request)

    def take_refresh(self, young: Iterable[Running]) -> None:
        if not self.reuse:
            self.allowance = float(self.limits.token_budget)  # nobody is kept waiting by a long step
        for request in young:
            if request.is_refresh:
                if not self._fits(request, min(self.left, self.allowance)):
                    self.has_unmet_refresh = True
                    return
                self._take(request)

    def admit(self, queue: Iterable[Waiting]) -> None:
        """Admissions are refreshes too: they wait behind an unmet one and spend the allowance."""
        for request in queue:
            if self.has_unmet_refresh or not self.can_admit(request):
                return
            if not self._fits(request, self.allowance):
                self.has_unmet_refresh = True
                return
            self.admit_one(request)

    def can_admit(self, request: Waiting) -> bool:
        has_room = self._free_slots > 0 and self._free_pages - request.pages >= self._page_floor
        return has_room and self._fits(request, self.left)

    def admit_one(self, request: Waiting) -> None:
        self.left -= request.tokens
        self.allowance -= request.tokens
        self._free_slots -= 1
        self._free_pages -= request.pages
        self.admitted += 1

    def _fits(self, request: Running | Waiting, most: float) -> bool:
        """Whether its tokens are at most that many. What they keep out makes the step tight."""
        fits = request.tokens <= most
        self.is_tight |= not fits
        return fits

    def _take(self, request: Running) -> None:
        self.left -= request.tokens
        if request.is_refresh:
            self.allowance -= request.tokens
            self.refresh.append(request.slot)
        else:
            self.reuse.append(request.slot)


def schedule(
    running: Sequence[Running], waiting: Iterable[Waiting], limits: Limits, deficit: float
) -> StepPlan:
    """Plan one step; ``tokens`` of the plan never exceed ``limits.token_budget``.

    ``deficit`` is the carried refresh allowance of the previous plan, 0 at the start. Every request of
    ``running`` and the head of ``waiting`` must fit an empty step; larger ones are refused when they arrive.
    """
    step = _Step(limits, deficit, runs_anything=bool(running))
    by_age = sorted(running, key=lambda request: -request.waited_steps)
    young = [request for request in by_age if request.waited_steps < limits.aging_steps]
    step.take_aged(by_age[: len(by_age) - len(young)])
    queue = iter(waiting)
    head = next(queue, None)
    if head is not None and head.waited_steps >= limits.aging_steps and step.can_admit(head):
        step.admit_one(head)
        head = next(queue, None)
    step.take_reuse(young)
    step.take_refresh(young)
    if head is not None:
        step.admit(chain([head], queue))
    return StepPlan(
        refresh=tuple(step.refresh),
        reuse=tuple(step.reuse),
        admitted=step.admitted,
        tokens=limits.token_budget - step.left,
        deficit=max(step.allowance, -float(limits.token_budget)) if step.has_unmet_refresh else 0.0,
        is_tight=step.is_tight,
    )
