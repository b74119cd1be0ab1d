"""The reference cases: an independent implementation's tokens and forward passes."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import Generate
from dllm_server.settings import Strategy
from engines import FIXTURE, make_engine, make_request, run_all, run_alone, used_pages

CASES: list[dict[str, Any]] = json.loads((FIXTURE / "cases.json").read_text())["cases"]


@cache
def fixture_engine() -> Engine:
    return make_engine(FIXTURE, max_num_seqs=32, page_size=16, kv_pool_bytes=32 * 1024**2)


def make_case(number: int) -> Generate:
    case = CASES[number]
    return make_request(
        str(number),
        prompt=case["prompt"],
        max_tokens=case["max_tokens"],
        block_length=case["block_length"],
        refresh_interval=1 if case["cache"] == "none" else None,
        strategy=Strategy(case["strategy"]),
        value=case["value"],
    )


def test_there_are_twenty_cases() -> None:
    assert len(CASES) == 20


@pytest.mark.parametrize("number", range(20))
def test_a_case_alone_gives_the_expected_tokens_and_forward_passes(number: int) -> None:
    outcome = run_alone(fixture_engine(), make_case(number))

    assert outcome.tokens == CASES[number]["expected"]
    assert outcome.stats.forward_passes == CASES[number]["forwards"]


def test_all_cases_at_once_give_the_expected_tokens_and_forward_passes() -> None:
    engine = fixture_engine()

    outcomes = run_all(engine, [make_case(number) for number in range(20)])

    assert [outcomes[str(n)].tokens for n in range(20)] == [case["expected"] for case in CASES]
    assert [outcomes[str(n)].stats.forward_passes for n in range(20)] == [c["forwards"] for c in CASES]
    assert used_pages(engine) == 0
