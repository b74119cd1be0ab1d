"""Which requests run in the next step, and in which phase. A pure decision over numbers; it knows no tensors.

A phase is long, bound by computing and may wait (a refresh, a prefill), or short, bound by memory, and keeps
a promise already made (reuse, denoising). Tokens are the currency. In order: whatever has waited
``aging_steps``, then short phases, then long ones from a deficit counter so that a burst of them spreads over
steps, then admissions first come first served. A prefill is cut to what is left.

Bound: an admitted request is served at least once every ``aging_steps + number of running requests`` steps,
because the oldest aged request goes first and every admitted request, or a piece of it, fits an empty step.

Where requests take pages as they grow there may be too few: then the youngest go back to the queue until the
others' next steps have theirs. The oldest never goes, and alone it fits, so that all end at last.

Where long phases can be cut, one request in a long phase takes ``PACE`` times as long in a step as all short
phases do, two twice that, and so on: a long prompt does not make all others wait, and neither do all others
make a crowd wait. As long as more wait than run in a short phase, long phases have the larger share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

PACE = 0.6


class Running(NamedTuple):
    """An admitted request: what its next step costs and how long ago it was last served.

    ``grain`` above 0: it may be cut to a multiple of that many tokens. ``pages`` are those it lacks for its
    next step. ``weight``: what one of its tokens takes, by one that sees few keys.
    """

    slot: int
    is_long: bool
    tokens: int
    waited_steps: int
    grain: int = 0
    pages: int = 0
    weight: float = 1.0


class Waiting(NamedTuple):
    """A queued request: its first step, a long one, queries ``tokens``; ``pages`` are reserved for it.
    ``grain`` and ``weight``: see ``Running``."""

    tokens: int
    pages: int
    waited_steps: int
    grain: int = 0
    weight: float = 1.0

    @property
    def is_long(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Limits:
    """What one step may use. ``watermark_pages`` stay free when admitting, unless nothing runs. ``waiting``
    requests stand in the queue. ``free_tokens`` above 0: long phases can be cut, and so many tokens take a
    step no longer than one."""

    token_budget: int
    refresh_share: float
    aging_steps: int
    free_slots: int
    free_pages: int
    watermark_pages: int = 0
    waiting: int = 0
    free_tokens: int = 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Slots by phase with their tokens, the tokens of those that are admitted (a prefix of the queue, all in
    a long phase), the slots that go back to the queue and the deficit to carry. ``is_tight``: a request could
    have run, or run further, but for its tokens. With anything in ``preempted`` the rest is empty: plan again
    once they are gone."""

    long: dict[int, int]
    short: dict[int, int]
    admitted: tuple[int, ...]
    tokens: int
    deficit: float
    is_tight: bool
    preempted: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.long or self.short or self.admitted)


class _Step:
    """A plan in the making. ``allowance`` is what long phases may still take, ``pace`` what those that can be
    cut may, in tokens that see few keys, ``lacking`` the pages that running requests may take in it."""

    def __init__(self, limits: Limits, deficit: float, running: Sequence[Running], lacking: int) -> None:
        self.limits = limits
        self.left = limits.token_budget
        share, self.pace = _share_and_pace(limits, running)
        self.allowance = min(deficit + share * limits.token_budget, float(limits.token_budget))
        self.long: dict[int, int] = {}
        self.short: dict[int, int] = {}
        self.admitted: list[int] = []
        self.has_unmet_long = False
        self.is_tight = False
        self._free_slots, self._free_pages = limits.free_slots, limits.free_pages - lacking
        self._page_floor = limits.watermark_pages if running else 0

    def take_aged(self, aged: Iterable[Running]) -> None:
        for request in aged:
            if not self._take(request, self.left):
                return

    def take_short(self, young: Iterable[Running]) -> None:
        for request in young:
            if not request.is_long and not self._take(request, self.left):
                return

    def take_long(self, young: Iterable[Running]) -> None:
        if not self.short:
            self.allowance = float(self.limits.token_budget)  # nobody is kept waiting by a long step
        for request in young:
            if request.is_long and not self._take(request, min(self.left, self.allowance)):
                self.has_unmet_long = True
                return

    def admit(self, queue: Iterable[Waiting]) -> None:
        """Admissions are long phases too: they wait behind an unmet one and spend the allowance."""
        for request in queue:
            if self.has_unmet_long or not self._has_room(request):
                return
            tokens = self._admit(request, min(self.left, self.allowance))
            if tokens < request.tokens:
                self.has_unmet_long |= tokens > 0 or request.tokens <= self.left
                return

    def admit_aged(self, request: Waiting) -> bool:
        """The head of the queue, whatever the allowance; whether it is in."""
        tokens = self._admit(request, self.left) if self._has_room(request) else 0
        self.has_unmet_long |= 0 < tokens < request.tokens
        return tokens > 0

    def _has_room(self, request: Waiting) -> bool:
        return self._free_slots > 0 and self._free_pages - request.pages >= self._page_floor

    def _admit(self, request: Waiting, most: float) -> int:
        tokens = self._piece(request, most)
        if tokens:
            self.left -= tokens
            self.allowance -= tokens
            self.pace -= tokens * request.weight
            self._free_slots -= 1
            self._free_pages -= request.pages
            self.admitted.append(tokens)
        return tokens

    def _take(self, request: Running, most: float) -> bool:
        """Whether all of it is in."""
        tokens = self._piece(request, most)
        if tokens:
            self.left -= tokens
            if request.is_long:
                self.allowance -= tokens
                self.pace -= tokens * request.weight
            (self.long if request.is_long else self.short)[request.slot] = tokens
        return tokens == request.tokens

    def _piece(self, request: Running | Waiting, most: float) -> int:
        """What of its tokens there is room for, 0 for none. What stays out for want of tokens makes the step
        tight."""
        if request.tokens <= most and not request.grain:
            return request.tokens
        self.is_tight |= request.tokens > most
        if not request.grain:
            return 0
        paced = max(self.pace / request.weight, request.grain) if request.is_long else self.left
        tokens = min(request.tokens, most, paced)
        return (
            request.tokens
            if tokens == request.tokens
            else max(int(tokens), 0) // request.grain * request.grain
        )


def _share_and_pace(limits: Limits, running: Sequence[Running]) -> tuple[float, float]:
    """The share of the token budget for long phases, and what those that can be cut may take of it beside the
    short ones."""
    short = [request.tokens for request in running if not request.is_long]
    if not (limits.free_tokens and short):
        return limits.refresh_share, float("inf")
    long = max(len(running) - len(short) + min(limits.waiting, limits.free_slots), 1)
    share = max(limits.refresh_share, long / (long + len(short)))
    return share, PACE * long * (sum(short) + limits.free_tokens)


def schedule(
    running: Sequence[Running],
    waiting: Iterable[Waiting],
    limits: Limits,
    deficit: float,
    frees: Callable[[int], int] = lambda _: 0,
) -> StepPlan:
    """Plan one step; ``tokens`` of the plan never exceed ``limits.token_budget``.

    ``running`` is in the order of arrival. ``deficit`` is the carried allowance of long phases of the
    previous plan, 0 at the start. ``frees`` says what others could have if the request of a slot gave its
    pages back; it is asked when pages are short. Every request of ``running`` and the head of ``waiting``, or
    a grain of them, must fit an empty step; larger ones are refused when they arrive.
    """
    lacking = sum(request.pages for request in running)
    if preempted := _youngest(running, lacking - limits.free_pages, frees):
        return StepPlan({}, {}, (), 0, deficit, is_tight=False, preempted=preempted)
    step = _Step(limits, deficit, running, lacking)
    by_age = sorted(running, key=lambda request: -request.waited_steps)
    young = [request for request in by_age if request.waited_steps < limits.aging_steps]
    step.take_aged(by_age[: len(by_age) - len(young)])
    queue = iter(waiting)
    head = next(queue, None)
    if head is not None and head.waited_steps >= limits.aging_steps and step.admit_aged(head):
        head = next(queue, None)
    step.take_short(young)
    step.take_long(young)
    if head is not None:
        step.admit(chain([head], queue))
    return StepPlan(
        long=step.long,
        short=step.short,
        admitted=tuple(step.admitted),
        tokens=limits.token_budget - step.left,
        deficit=max(step.allowance, -float(limits.token_budget)) if step.has_unmet_long else 0.0,
        is_tight=step.is_tight,
    )


def _youngest(running: Sequence[Running], missing: int, frees: Callable[[int], int]) -> tuple[int, ...]:
    """As many as make up for the pages that are ``missing`` for the next steps of all."""
    going: list[int] = []
    for request in reversed(running[1:]):
        if missing <= 0:
            break
        missing -= request.pages + frees(request.slot)
        going.append(request.slot)
    return tuple(going)
