"""Steps of requests with a grammar that are launched before the result of the one before is read: they go on
behind what that one has chosen, and nothing else changes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from operator import itemgetter

import msgspec
import pytest
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import Generate
from dllm_server.settings import Strategy
from dllm_server.structure.grammar import Grammar, GrammarKind
from engines import Outcome, check_ends, collect, run_all, run_alone, run_with_cancels, used_pages
from faulty_runner import AllocationFailure, install
from guided_requests import engine_of, guided, json_grammar
from schema_cases import SCHEMAS

FAMILIES = ("llada", "dream", "illada", "llada_moe", "sdar", "sdar_b8", "llada2", "llada21", "fast_dllm_v2")
GRAMMARS = [
    Grammar(GrammarKind.REGEX, "[a-m]{30}"),
    Grammar(GrammarKind.REGEX, "a{1,20}(, once more){2}"),
    *(json_grammar(schema) for schema in SCHEMAS.values()),
]
each_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def engine(family: str) -> Iterator[Engine]:
    found = engine_of(family)
    install(found)
    found.throttle = type(found.throttle)()
    yield found
    found.runs_ahead = False
    install(found)
    assert not found.has_work
    assert used_pages(found) == 0
    assert found.table.matches == {}


def mix(family: str, seed: int, count: int = 9) -> list[Generate]:
    """Quotas and orders whose steps choose a known number of tokens; a third of them without a grammar."""
    dice = random.Random(seed)
    strategies = (Strategy.QUOTA, Strategy.SEQUENTIAL)
    return [
        guided(
            family,
            None if number % 3 == 0 else dice.choice(GRAMMARS),
            f"{number}",
            strategy=dice.choice(strategies),
            value=float(dice.randint(1, 3)),
            temperature=dice.choice((0.0, 1.0)),
            seed=seed + number,
            max_tokens=dice.randint(8, 70),
            prompt=[7] * dice.randint(1, 12),
            top_logprobs=dice.choice((0, 2)),
        )
        for number in range(count)
    ]


@pytest.mark.sampled(0.3)
@each_family
def test_running_ahead_gives_the_same_answers(engine: Engine, family: str) -> None:
    requests = mix(family, seed=len(family))
    behind = run_all(engine, requests)
    engine.runs_ahead = True

    ahead = run_all(engine, requests)

    assert behind.keys() == ahead.keys()
    for name, one in behind.items():
        other = ahead[name]
        assert other.tokens == one.tokens
        assert other.end.reason == one.end.reason  # type: ignore[union-attr]
        assert other.stats.forward_passes == one.stats.forward_passes
        assert other.logprobs == pytest.approx(one.logprobs, abs=1e-4)
        assert [[*map(itemgetter(0), names)] for names in other.alternatives] == [
            [*map(itemgetter(0), names)] for names in one.alternatives
        ]


@pytest.mark.parametrize("family", ["llada", "sdar"])
def test_a_step_with_grammars_is_on_its_way_while_the_next_is_planned(engine: Engine, family: str) -> None:
    engine.runs_ahead = True
    request = guided(family, GRAMMARS[0], strategy=Strategy.QUOTA, value=1.0, max_tokens=40)
    expected = run_alone(engine, request)

    outcomes: dict[str, Outcome] = {}
    collect(engine.submit(request), outcomes)
    are_ahead = 0
    while engine.has_work:
        collect(engine.step(), outcomes)
        are_ahead += engine._launched is not None

    assert are_ahead >= 25  # not where the text ends
    assert outcomes["g"].tokens == expected.tokens


@pytest.mark.sampled(0.1)
@pytest.mark.parametrize("seed", range(4))
@each_family
def test_cancels_and_errors_between_launch_and_result_lose_nothing(
    engine: Engine, family: str, seed: int
) -> None:
    dice, requests = random.Random(seed), mix(family, seed)
    undisturbed = run_all(engine, requests)
    engine.runs_ahead = True
    install(engine, {dice.randrange(80) for _ in range(8)})
    outcomes = run_with_cancels(engine, requests, dice, share=0.05)

    check_ends(requests, outcomes, undisturbed)


@pytest.mark.sampled(0.1)
@pytest.mark.parametrize("at", range(0, 160, 8))
@pytest.mark.parametrize("family", ["llada", "sdar"])
def test_an_error_in_any_tensor_operation_behind_a_step_on_its_way_loses_nothing(
    engine: Engine, family: str, at: int
) -> None:
    requests = [msgspec.structs.replace(one, max_tokens=20) for one in mix(family, seed=3, count=3)]
    requests[1] = msgspec.structs.replace(requests[1], grammar=GRAMMARS[0])
    expected = run_all(engine, requests)
    engine.runs_ahead = True
    outcomes: dict[str, Outcome] = {}
    for request in requests:
        collect(engine.submit(request), outcomes)
    while engine._launched is None or not engine.table.matches:
        assert engine.has_work
        collect(engine.step(), outcomes)

    with AllocationFailure(at):
        collect(engine.step(), outcomes)
    while engine.has_work:
        collect(engine.step(), outcomes)

    assert {n: o.tokens for n, o in outcomes.items()} == {n: o.tokens for n, o in expected.items()}


@pytest.mark.parametrize("family", ["sdar"])
def test_a_request_that_is_preempted_goes_on_where_it_was(engine: Engine, family: str) -> None:
    requests = [
        msgspec.structs.replace(request, grammar=GRAMMARS[0], max_tokens=60)
        for request in mix(family, seed=5, count=6)
    ]
    expected = run_all(engine, requests)
    engine.runs_ahead = True
    outcomes: dict[str, Outcome] = {}
    for request in requests:
        collect(engine.submit(request), outcomes)
    steps = 0
    while engine.has_work:
        collect(engine.step(), outcomes)
        steps += 1
        if steps % 7 == 0 and engine._running:
            collect(engine._collect_last(), outcomes)
            engine._preempt([*engine._running][:2])

    assert engine.stats.preemptions > 3
    assert {n: o.tokens for n, o in outcomes.items()} == {n: o.tokens for n, o in expected.items()}
