"""The reference cases of the bidirectional families: other implementations' tokens and forward passes."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from dllm_server.engine.process.startup import StartedEngine
from dllm_server.engine.requests.messages import Generate
from dllm_server.settings import Strategy
from engines import (
    FIXTURES,
    Outcome,
    make_request,
    run_all,
    run_alone,
    start_engine_in_process,
    used_pages,
)

BIDIRECTIONAL = {"llada_mha": 20, "llada_moe": 15, "illada": 14}
NUMBERED = [(fixture, number) for fixture, count in BIDIRECTIONAL.items() for number in range(count)]


@cache
def cases_of(fixture: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((FIXTURES / fixture / "cases.json").read_text())["cases"]
    return cases


@cache
def started(fixture: str) -> StartedEngine:
    return start_engine_in_process(
        FIXTURES / fixture, max_num_seqs=32, page_size=16, kv_pool_bytes=32 * 1024**2
    )


def make_case(fixture: str, number: int) -> Generate:
    case = cases_of(fixture)[number]
    return make_request(
        str(number),
        prompt=case["prompt"],
        max_tokens=case["max_tokens"],
        block_length=case["block_length"],
        refresh_interval=1 if case["cache"] == "none" else None,
        strategy=Strategy(case["strategy"]),
        value=case["value"],
        stop_token_ids=started(fixture).model.eos_token_ids,
    )


def check(outcome: Outcome, case: dict[str, Any]) -> None:
    """A reference that never stops counts the passes up to the end of the block that holds the EOS: at most
    these are needed."""
    assert outcome.tokens == case["expected"]
    if "forwards" in case:
        assert outcome.stats.forward_passes == case["forwards"]
    else:
        assert outcome.stats.forward_passes <= case["forwards_through_stop_block"]


@pytest.mark.parametrize(("fixture", "count"), BIDIRECTIONAL.items())
def test_there_are_as_many_cases_as_are_run(fixture: str, count: int) -> None:
    assert len(cases_of(fixture)) == count


@pytest.mark.parametrize(("fixture", "number"), NUMBERED)
def test_a_case_alone_gives_the_expected_tokens_and_forward_passes(fixture: str, number: int) -> None:
    check(run_alone(started(fixture).engine, make_case(fixture, number)), cases_of(fixture)[number])


@pytest.mark.parametrize("fixture", BIDIRECTIONAL)
def test_all_cases_at_once_give_the_expected_tokens_and_forward_passes(fixture: str) -> None:
    engine, cases = started(fixture).engine, cases_of(fixture)

    outcomes = run_all(engine, [make_case(fixture, number) for number in range(len(cases))])

    for number, case in enumerate(cases):
        check(outcomes[str(number)], case)
    assert used_pages(engine) == 0
