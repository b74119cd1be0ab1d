"""The engine over block-causal models gives what their authors' code gives: alone, beside others, cold and
with its prefix cached, in small pieces and in one, and after it had to give way."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import pytest
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import Diffusion, Finished, FinishReason, Generate, Sampling
from dllm_server.settings import Confidence, Strategy
from engines import Outcome, make_engine, run_all, run_alone, used_pages
from exact_cases import BLOCK_CAUSAL, FIXTURES, STRATEGIES, Case, cases_of

CASES = [
    pytest.param(fixture, case, id=f"{fixture}-{number}")
    for fixture in BLOCK_CAUSAL
    for number, case in enumerate(cases_of(fixture))
]


@cache
def engine_of(fixture: str, **changes: Any) -> Engine:
    sizes = {"max_num_seqs": 40, "max_num_batched_tokens": 2048, "kv_pool_bytes": 16 * 1024**2}
    return make_engine(FIXTURES / fixture, **(sizes | changes))


def request_of(fixture: str, case: Case, request_id: str = "r", salt: str = "") -> Generate:
    values = (case.get(name) for name in ("confidence_threshold", "eb_threshold", "threshold"))
    strategy = Strategy(STRATEGIES.get(case["strategy"], case["strategy"]))
    diffusion = Diffusion(
        block_length=case["block_length"],
        refresh_interval=None,
        strategy=strategy,
        value=next((value for value in values if value is not None), 1.0),
        confidence=Confidence.PROBABILITY,
        retention_ratio=1.0,
        steps_per_block=case.get("effective_steps", case.get("denoising_steps")),
        edit_threshold=case.get("editing_threshold"),
        max_post_edit_steps=case.get("max_post_steps", 0),
        sub_block_length=case.get("sub_block_length"),
    )
    stops = list(engine_of(fixture).runner.model.config.eos_token_ids)
    return Generate(
        request_id, case["prompt"], case["max_tokens"], Sampling(), diffusion, stops, cache_salt=salt
    )


def check(outcome: Outcome, case: Case) -> None:
    assert outcome.tokens == case["expected"]
    assert isinstance(outcome.end, Finished)
    stopped = FinishReason.STOP if case["stop_token"] is not None else FinishReason.LENGTH
    assert outcome.end.reason is stopped


def most_forwards(case: Case) -> int:
    """Of the authors' code with a cache: it prefills at once, and commits each block by a pass of its own."""
    block = case["block_length"]
    blocks = -(-(len(case["prompt"]) + case["max_tokens"]) // block) - len(case["prompt"]) // block
    return case["forwards"] + case.get("commit_forwards", blocks) + 1


@pytest.mark.sampled(0.3)
@pytest.mark.parametrize(("fixture", "case"), CASES)
def test_alone_and_cold_and_then_with_its_prefix_cached(fixture: str, case: Case) -> None:
    engine = engine_of(fixture)

    cold = run_alone(engine, request_of(fixture, case, "cold", salt=f"{id(case)}"))
    hits = engine.course.store.counts.hit_tokens
    cached = run_alone(engine, request_of(fixture, case, "cached", salt=f"{id(case)}"))

    check(cold, case)
    check(cached, case)
    assert cold.stats.forward_passes <= most_forwards(case)
    assert cached.stats.forward_passes <= cold.stats.forward_passes
    chunk = engine.course.store.chunk_tokens
    shared = (len(case["prompt"]) - engine.table.shift * case["block_length"]) // chunk * chunk
    assert engine.course.store.counts.hit_tokens - hits >= max(shared, 0)
    assert used_pages(engine) == 0


@pytest.mark.parametrize("fixture", BLOCK_CAUSAL)
@pytest.mark.parametrize("tokens", [None, 64])
def test_beside_32_others_with_pieces_of_a_block_or_two(fixture: str, tokens: int | None) -> None:
    engine = engine_of(fixture) if tokens is None else engine_of(fixture, max_num_batched_tokens=tokens)
    cases = cases_of(fixture)
    mix = [cases[number % len(cases)] for number in range(33)]

    outcomes = run_all(
        engine,
        [request_of(fixture, case, str(number), salt=str(number % 3)) for number, case in enumerate(mix)],
    )

    for number, case in enumerate(mix):
        check(outcomes[str(number)], case)
    assert used_pages(engine) == 0


@pytest.mark.parametrize("fixture", BLOCK_CAUSAL)
def test_after_it_has_given_way_to_others(fixture: str) -> None:
    cases = cases_of(fixture)
    longest = max(len(case["prompt"]) + case["max_tokens"] for case in cases)
    shape = engine_of(fixture).runner.model.config.shape("", 4)
    tokens = (longest // 32 + 4) * 32  # hardly more than one needs
    engine = engine_of(
        fixture, kv_pool_bytes=shape.kv_bytes_per_slot * tokens, max_model_len=(longest // 32 + 1) * 32
    )
    mix = [cases[number % len(cases)] for number in range(24)]

    outcomes = run_all(
        engine, [request_of(fixture, case, str(number), str(number)) for number, case in enumerate(mix)]
    )

    for number, case in enumerate(mix):
        check(outcomes[str(number)], case)
    assert engine.stats.preemptions > 0
    assert used_pages(engine) == 0


@pytest.mark.parametrize("fixture", BLOCK_CAUSAL)
def test_the_step_that_prefills_may_be_the_last(fixture: str) -> None:
    """All of its one block at once; in pieces the block has a step of its own."""
    case = cases_of(fixture)[0]
    request = request_of(fixture, case)
    block = case["block_length"]
    diffusion = msgspec.structs.replace(
        request.diffusion, strategy=Strategy.QUOTA, value=float(block), steps_per_block=1, edit_threshold=None
    )
    request = msgspec.structs.replace(
        request, prompt=list(range(3, 3 + 4 * block)), max_tokens=1, diffusion=diffusion, stop_token_ids=[]
    )

    at_once = run_alone(engine_of(fixture), msgspec.structs.replace(request, cache_salt="at once"))
    pieces = run_alone(engine_of(fixture, max_num_batched_tokens=2 * block), request)

    assert isinstance(at_once.end, Finished)
    assert at_once.tokens == pieces.tokens
    assert len(at_once.tokens) == 1
    assert at_once.stats.forward_passes < pieces.stats.forward_passes


def test_steps_tokens_and_forward_passes_are_counted_as_prefill_and_denoise() -> None:
    engine, case = engine_of("sdar", max_num_seqs=2), cases_of("sdar")[0]
    stats, prompt = engine.stats, list(range(3, 43))
    request = msgspec.structs.replace(request_of("sdar", case), prompt=prompt, max_tokens=8)

    outcome = run_alone(engine, request)

    assert set(stats.steps) == {"prefill", "denoise", "mixed"}
    assert set(stats.oom) == {"prefill", "denoise", "mixed", "profile"}
    assert (stats.steps["prefill"], stats.steps["mixed"], outcome.stats.prefill_passes) == (1, 0, 1)
    assert stats.tokens["prefill"] == len(prompt) + 4  # and the first block
    assert stats.steps["denoise"] == outcome.stats.forward_passes - 1
    assert outcome.stats.refresh_passes == 0
