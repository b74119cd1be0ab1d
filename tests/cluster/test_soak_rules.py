"""The soak's decks, and what its judge lets pass."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.soak import (
    BESIDE,
    NOTICED_SECONDS,
    SERVING,
    TERMS,
    Event,
    Happening,
    Harm,
    Lane,
    Request,
    Step,
    deal,
    faults,
    figures,
)

LANES = st.sampled_from([SERVING, BESIDE])
SEEDS = st.integers(0, 2**32 - 1)
BREAKING = Happening(Event.KILL_SERVER, began=100.0, done=101.0, over=130.0, open_connections=1)
REFUSING = Happening(Event.KILL_API_SERVER, began=100.0, done=110.0, over=110.0)
HARMLESS = Happening(Event.DELETE_POD, began=100.0, done=101.0, over=130.0)


def make_request(*tries: tuple[float, float, str]) -> Request:
    return Request.parse(json.dumps({"how": "fresh", "tries": tries}))


def retried(outcome: str, began: float = 100.5, ended: float = 101.5) -> Request:
    return make_request((began, ended, outcome), (ended + 1, ended + 2, "ok"))


@given(LANES, SEEDS)
def test_every_deck_holds_every_event_of_its_lane_by_weight(lane: Lane, seed: int) -> None:
    size = sum(terms.weight for terms in lane.values())

    steps = [step.event for step in islice(deal(lane, seed, 60.0), 3 * size)]

    decks = [Counter(steps[start : start + size]) for start in range(0, 3 * size, size)]
    assert decks == 3 * [Counter({event: terms.weight for event, terms in lane.items()})]


@given(LANES, SEEDS)
def test_a_seed_repeats_its_steps(lane: Lane, seed: int) -> None:
    assert list(islice(deal(lane, seed, 60.0), 50)) == list(islice(deal(lane, seed, 60.0), 50))


@given(LANES, SEEDS, st.floats(0.0, 1000.0))
def test_what_is_stopped_comes_back_within_its_bounds(lane: Lane, seed: int, longest: float) -> None:
    for step in islice(deal(lane, seed, longest), 50):
        least, most = TERMS[step.event].outage_seconds
        assert least <= step.outage_seconds <= max(least, min(most, longest))
        assert step.pause_seconds > 0


@given(SEEDS, st.lists(st.integers(), min_size=1))
def test_a_choice_is_one_of_the_targets(seed: int, targets: list[int]) -> None:
    assert Step(Event.EDIT, 1.0, random.Random(seed).random()).pick(targets) in targets


def test_every_event_is_in_one_lane() -> None:
    assert set(SERVING) | set(BESIDE) == set(Event)
    assert not set(SERVING) & set(BESIDE)


@pytest.mark.parametrize(
    ("request_", "happenings"),
    [
        (make_request((1.0, 2.0, "ok")), []),
        (retried("503 shutting_down"), []),
        (retried("refused ConnectionRefusedError"), [REFUSING]),
        (retried("refused ConnectionRefusedError"), [HARMLESS, BREAKING]),
        (retried("refused TimeoutError", 180.0, 183.0), [BREAKING]),
        (retried("broken RemoteDisconnected"), [BREAKING]),
        (retried("broken engine_dead", 90.0, 101.0 + NOTICED_SECONDS), [BREAKING]),
    ],
)
def test_what_an_event_may_do_passes(request_: Request, happenings: list[Happening]) -> None:
    assert faults([request_], happenings) == []


@pytest.mark.parametrize(
    ("request_", "happenings"),
    [
        (make_request((1.0, 301.0, "503 queue_full")), []),
        (retried("wrong 500 internal_error"), [BREAKING]),
        (retried("refused ConnectionRefusedError"), [HARMLESS]),
        (retried("refused ConnectionRefusedError", 200.0, 200.1), [BREAKING]),
        (retried("broken RemoteDisconnected"), [REFUSING, HARMLESS]),
        (retried("broken RemoteDisconnected", 90.0, 99.0), [BREAKING]),
        (retried("broken TimeoutError", 100.5, 220.0), [BREAKING]),
    ],
    ids=[
        "given up",
        "another error",
        "refused by a drain",
        "refused later",
        "cut by none",
        "cut before",
        "hung",
    ],
)
def test_what_no_event_may_do_is_a_fault(request_: Request, happenings: list[Happening]) -> None:
    assert len(faults([request_], happenings)) == 1


def test_a_killed_process_breaks_no_more_than_its_connections() -> None:
    broken = [retried("broken RemoteDisconnected"), retried("broken IncompleteRead")]

    assert faults(broken[:1], [BREAKING]) == []
    assert len(faults(broken, [BREAKING])) == 1
    assert {event for event, terms in TERMS.items() if terms.harm is Harm.BROKEN} <= set(SERVING)


def test_the_figures_count_each_request_once() -> None:
    requests = [
        make_request((1.0, 2.0, "ok")),
        retried("503 x"),
        retried("refused x"),
        retried("broken x"),
        make_request((5.0, 6.0, "wrong 500 x")),
    ]

    rows = figures(requests, [BREAKING, REFUSING])

    assert list(rows.values())[:8] == ["2", "5", "1", "1", "1", "1", "1", "3 of 4"]
    assert rows["longest time without any answer"] == "101.5 s"
