"""The schedule as a pure decision: what never happens, and simulated runs of the decision alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from dllm_server.engine.schedule.scheduler import Limits, Running, StepPlan, Waiting, schedule
from hypothesis import given, settings
from hypothesis import strategies as st

BUDGET = 200
GRAIN = 8
grains = st.sampled_from([0, GRAIN])  # whole, or to be cut
weights = st.floats(1.0, 9.0)
runnings = st.lists(
    st.tuples(st.booleans(), st.integers(1, BUDGET), st.integers(0, 30), grains, st.just(0), weights),
    max_size=12,
).map(lambda rows: [Running(slot, *row) for slot, row in enumerate(rows)])
waitings = st.lists(
    st.builds(Waiting, st.integers(1, BUDGET), st.integers(0, 20), st.integers(0, 30), grains, weights),
    max_size=8,
)


def make_limits(
    *,
    budget: int = BUDGET,
    share: float = 0.5,
    aging: int = 8,
    slots: int = 4,
    pages: int = 40,
    watermark: int = 0,
    waiting: int = 0,
    free_tokens: int = 0,
) -> Limits:
    return Limits(budget, share, aging, slots, pages, watermark, waiting, free_tokens)


limits_of = st.builds(
    make_limits,
    share=st.floats(0.01, 1),
    slots=st.integers(-2, 6),
    pages=st.integers(0, 60),
    watermark=st.integers(0, 20),
    waiting=st.integers(0, 9),
    free_tokens=st.sampled_from([0, 30]),
)


@settings(max_examples=300)
@given(runnings, waitings, limits_of, st.floats(-BUDGET, BUDGET))
def test_a_plan_keeps_every_limit(
    running: list[Running], waiting: list[Waiting], limits: Limits, deficit: float
) -> None:
    plan = schedule(running, waiting, limits, deficit)

    by_slot = {request.slot: request for request in running}
    admitted = waiting[: len(plan.admitted)]
    chosen = plan.long | plan.short
    assert sum(chosen.values()) + sum(plan.admitted) == plan.tokens <= limits.token_budget
    given_tokens = [(by_slot[slot], tokens) for slot, tokens in chosen.items()]
    for request, tokens in [*given_tokens, *zip(admitted, plan.admitted, strict=True)]:
        assert tokens == request.tokens or (request.grain and 0 < tokens < request.tokens)
        assert tokens == request.tokens or tokens % request.grain == 0
    assert all(by_slot[slot].is_long for slot in plan.long)
    assert not any(by_slot[slot].is_long for slot in plan.short)
    assert len(plan.admitted) <= max(limits.free_slots, 0)
    assert sum(request.pages for request in admitted) <= limits.free_pages
    if running and admitted:
        assert limits.free_pages - sum(r.pages for r in admitted) >= limits.watermark_pages
    assert -limits.token_budget <= plan.deficit <= limits.token_budget


@given(runnings, waitings, limits_of, st.floats(-BUDGET, BUDGET))
def test_a_step_is_never_empty_while_something_runs(
    running: list[Running], waiting: list[Waiting], limits: Limits, deficit: float
) -> None:
    if running:
        assert not schedule(running, waiting, limits, deficit).is_empty


@given(waitings, st.floats(-BUDGET, BUDGET))
def test_an_idle_engine_always_admits_the_head_of_the_queue(waiting: list[Waiting], deficit: float) -> None:
    if waiting:
        assert schedule([], waiting, make_limits(watermark=39), deficit).admitted


@given(runnings, limits_of)
def test_work_is_conserved_when_nothing_reuses(running: list[Running], limits: Limits) -> None:
    refreshing = [request._replace(is_long=True, waited_steps=0) for request in running]

    plan = schedule(refreshing, [], limits, 0.0)

    not_whole = [request for request in refreshing if plan.long.get(request.slot) != request.tokens]
    if not_whole:
        assert (not_whole[0].grain or not_whole[0].tokens) > limits.token_budget - plan.tokens


def test_refreshes_that_end_together_are_spread_over_steps() -> None:
    reuse = [Running(slot, False, 8, 0) for slot in range(4)]
    burst = [Running(10 + slot, True, 40, 0) for slot in range(4)]

    plan = schedule([*reuse, *burst], [], make_limits(share=0.25), 0.0)

    assert list(plan.short) == [0, 1, 2, 3]
    assert list(plan.long) == [10]


def test_a_share_too_small_for_a_refresh_adds_up_over_steps() -> None:
    running = [Running(0, False, 8, 0), Running(1, True, 90, 0)]
    deficit, steps = 0.0, 0
    while True:
        steps += 1
        plan = schedule(running, [], make_limits(share=0.1), deficit)
        if plan.long:
            break
        deficit = plan.deficit

    assert steps == 5  # 20 tokens of allowance a step
    assert plan.deficit == 0.0


def test_a_refresh_that_is_not_wanted_saves_up_no_allowance() -> None:
    plan = schedule([Running(0, False, 8, 0)], [], make_limits(), 0.0)

    assert plan.deficit == 0.0


def test_a_large_request_at_the_head_is_not_overtaken() -> None:
    waiting = [Waiting(150, 1, 0), Waiting(10, 1, 0)]

    plan = schedule([Running(0, True, 100, 0)], waiting, make_limits(), 0.0)

    assert not plan.admitted


@pytest.mark.parametrize(
    ("running", "waiting", "limits", "is_tight"),
    [
        ([Running(0, False, 8, 0)], [], {}, False),
        ([Running(0, False, 8, 0), Running(1, True, 150, 0)], [], {"share": 1.0}, False),
        ([Running(0, False, 8, 0), Running(1, True, 150, 0)], [], {}, True),  # above refreshes' share
        ([Running(0, False, 120, 0), Running(1, False, 120, 0)], [], {}, True),
        ([Running(0, True, 120, 9), Running(1, True, 120, 9)], [], {}, True),
        ([Running(0, True, 120, 0)], [Waiting(120, 1, 0)], {}, True),
        ([Running(0, True, 120, 0)], [Waiting(120, 1, 0)], {"slots": 0}, False),  # no slot either
        ([Running(0, True, 120, 0)], [Waiting(120, 9, 0)], {"pages": 8}, False),
    ],
)
def test_a_step_is_tight_when_only_its_tokens_keep_a_request_out(
    running: list[Running], waiting: list[Waiting], limits: dict[str, Any], is_tight: bool
) -> None:
    assert schedule(running, waiting, make_limits(**limits), 0.0).is_tight is is_tight


def test_what_has_waited_longest_goes_first_once_aged() -> None:
    running = [Running(0, False, 100, 0), Running(1, True, 150, 9), Running(2, True, 150, 12)]

    plan = schedule(running, [], make_limits(), 0.0)

    assert list(plan.long) == [2]
    assert not plan.short


def test_pages_under_the_watermark_stay_free_while_anything_runs() -> None:
    waiting, limits = [Waiting(10, 5, 0)], make_limits(pages=12, watermark=8)

    assert schedule([Running(0, False, 1, 0)], waiting, limits, 0.0).admitted == ()
    assert schedule([], waiting, limits, 0.0).admitted == (10,)


def test_a_prefill_is_cut_to_the_share_and_goes_on_with_the_rest() -> None:
    short, prefill = Running(0, False, 8, 0), Running(1, True, 500, 0, grain=32)

    first = schedule([short, prefill], [], make_limits(share=0.5), 0.0)
    second = schedule([short, prefill._replace(tokens=500 - 96)], [], make_limits(share=0.5), first.deficit)

    assert (first.short, first.long, first.deficit, first.is_tight) == ({0: 8}, {1: 96}, 4.0, True)
    assert second.long == {1: 96}
    assert schedule([prefill], [], make_limits(share=0.5), 0.0).long == {1: 192}


@pytest.mark.parametrize(
    ("weight", "waiting", "tokens"),
    [
        (1.0, 0, 232),  # six tenths of 32 blocks of 6 tokens and what is free
        (2.0, 0, 116),
        (2000.0, 0, 4),  # it always goes on
        (1.0, 1, 468),
        (1.0, 31, 2048),  # not more than their share
        (1.0, 95, 3072),  # three in four are not served yet: so are three in four tokens
    ],
)
def test_a_prefill_takes_as_long_as_what_it_joins(weight: float, waiting: int, tokens: int) -> None:
    short = [Running(slot, False, 6, 0) for slot in range(32)]
    long = Running(32, True, 16_000, 0, grain=4, weight=weight)
    limits = Limits(4096, 0.5, 100, free_slots=200, free_pages=9, waiting=waiting, free_tokens=200)

    plan = schedule([*short, long], [], limits, 0.0)

    assert plan.long == {32: tokens}
    assert len(plan.short) == 32


def test_a_prompt_at_the_head_of_the_queue_begins_at_the_same_pace() -> None:
    short = [Running(slot, False, 6, 0) for slot in range(32)]
    prompt = Waiting(16_000, 1, 200, grain=4)
    limits = Limits(4096, 0.5, 100, free_slots=9, free_pages=9, waiting=1, free_tokens=200)

    assert schedule(short, [prompt], limits, 0.0).admitted == (232,)
    assert schedule([], [prompt], limits, 0.0).admitted == (4096,)


def test_who_is_admitted_begins_with_a_piece_and_nobody_overtakes_it() -> None:
    waiting = [Waiting(500, 1, 0, grain=32), Waiting(8, 1, 0, grain=4)]

    assert schedule([], waiting, make_limits(), 0.0).admitted == (192,)
    assert schedule([Running(0, False, 8, 0)], waiting, make_limits(), 0.0).admitted == (96,)


def test_the_youngest_go_back_until_the_others_have_their_pages() -> None:
    running = [Running(slot, False, 8, 0, pages=2) for slot in range(4)]

    def preempted(pages: int, count: int = 4) -> tuple[int, ...]:
        return schedule(running[:count], [], make_limits(pages=pages), 0.0, lambda slot: 3).preempted

    assert [preempted(pages) for pages in (8, 7, 2, 0)] == [(), (3,), (3, 2), (3, 2)]
    assert preempted(0, count=1) == ()


def test_nobody_is_asked_what_it_would_free_while_there_are_pages() -> None:
    running, asked = [Running(slot, False, 8, 0, pages=2) for slot in range(4)], list[int]()

    def frees(slot: int) -> int:
        asked.append(slot)
        return 3

    schedule(running, [], make_limits(pages=8), 0.0, frees)
    assert asked == []
    schedule(running, [], make_limits(pages=7), 0.0, frees)
    assert asked == [3]


def test_nobody_is_admitted_to_pages_that_a_running_request_lacks() -> None:
    running, waiting = [Running(0, False, 8, 0, pages=3)], [Waiting(8, 4, 0)]

    assert schedule(running, waiting, make_limits(pages=6), 0.0).admitted == ()
    assert schedule(running, waiting, make_limits(pages=7), 0.0).admitted == (8,)


@dataclass
class Load:
    """A request of a simulated run: a refresh of ``sequence``, then reuses of ``window`` tokens, by turns."""

    sequence: int
    window: int
    pages: int
    blocks: int
    steps_a_block: int
    phase_step: int = 0
    last: int = 0

    @property
    def is_refresh(self) -> bool:
        return self.phase_step == 0

    def serve(self, now: int) -> bool:
        """Whether that was its last step."""
        self.last = now
        self.phase_step += 1
        if self.phase_step == self.steps_a_block:
            self.phase_step, self.blocks = 0, self.blocks - 1
        return self.blocks == 0


@pytest.mark.parametrize("seed", range(12))
def test_no_admitted_request_waits_longer_than_aging_and_the_number_running(seed: int) -> None:
    dice = random.Random(seed)
    aging, slots = dice.choice((1, 4, 16)), dice.choice((1, 3, 12))
    share = dice.choice((0.01, 0.3, 1.0))
    queue = [
        Load(dice.randint(2, BUDGET), dice.randint(1, 32), dice.randint(0, 12), dice.randint(1, 4), 3)
        for _ in range(60)
    ]
    for load in queue:
        load.window = min(load.window, load.sequence)
    running: dict[int, Load] = {}
    free, deficit, now, most_running = 60, 0.0, 0, 0
    while queue or running:
        now += 1
        limits = make_limits(share=share, aging=aging, slots=slots - len(running), pages=free)
        plan = schedule(
            [
                Running(slot, r.is_refresh, r.sequence if r.is_refresh else r.window, now - 1 - r.last)
                for slot, r in running.items()
            ],
            [Waiting(r.sequence, r.pages, now - 1) for r in queue],
            limits,
            deficit,
        )
        deficit = plan.deficit
        for slot in serve(plan, running, queue, now):
            free += running.pop(slot).pages
        free = 60 - sum(load.pages for load in running.values())
        most_running = max(most_running, len(running))
        assert all(now - load.last <= aging + most_running for load in running.values())
        assert now < 5000


def serve(plan: StepPlan, running: dict[int, Load], queue: list[Load], now: int) -> list[int]:
    """Carry out a plan; returns the slots that are done."""
    admitted = []
    for _ in plan.admitted:
        slot = next(number for number in range(1000) if number not in running)
        running[slot] = queue.pop(0)
        admitted.append(slot)
    return [slot for slot in [*plan.long, *plan.short, *admitted] if running[slot].serve(now)]
