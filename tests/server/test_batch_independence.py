"""What a request gets does not depend on who else is served."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import pytest
from checkpoints import Size, make_checkpoint
from dllm_server.engine.engine import Engine
from engines import Outcome, make_engine, make_request, run_all, run_alone, used_pages
from mixes import make_mix

SIZES = {"llada": Size(n_kv_heads=2), "dream": Size(family="dream", n_kv_heads=2)}


@cache
def engine_of(name: str) -> Engine:
    directory = make_checkpoint(Path(mkdtemp(prefix="dllm-test-")), SIZES[name])
    return make_engine(directory, max_num_seqs=64, max_num_batched_tokens=1024, kv_pool_bytes=16 * 1024**2)


def check_alternatives(found: Outcome, expected: Outcome) -> None:
    """Each likely token is as likely; rounding may change the order of two, and which is the last."""
    assert len(found.alternatives) == len(expected.alternatives)
    for mine, theirs in zip(found.alternatives, expected.alternatives, strict=True):
        assert [logprob for _, logprob in mine] == pytest.approx([p for _, p in theirs], abs=1e-4)
        last, known = (mine[-1][1] if mine else 0.0), dict(theirs)
        for token, logprob in mine:
            assert logprob == pytest.approx(known.get(token, last), abs=1e-4)


@pytest.mark.parametrize("name", SIZES)
def test_64_concurrent_mixed_requests_give_what_each_gives_alone(name: str) -> None:
    engine, requests = engine_of(name), make_mix(64, seed=7)
    alone = {request.request_id: run_alone(engine, request) for request in requests}

    together = run_all(engine, requests)

    assert {name: o.tokens for name, o in together.items()} == {n: o.tokens for n, o in alone.items()}
    for name, outcome in together.items():
        assert outcome.logprobs == pytest.approx(alone[name].logprobs, abs=1e-4)
        check_alternatives(outcome, alone[name])
    assert {n: o.stats.forward_passes for n, o in together.items()} == {
        n: o.stats.forward_passes for n, o in alone.items()
    }
    assert used_pages(engine) == 0


def test_the_order_of_arrival_changes_no_answer() -> None:
    engine, requests = engine_of("llada"), make_mix(24, seed=8)
    forwards = run_all(engine, requests)

    backwards = run_all(engine, requests[::-1])

    assert {n: o.tokens for n, o in backwards.items()} == {n: o.tokens for n, o in forwards.items()}


def test_rows_of_logits_at_once_change_no_answer() -> None:
    engine, requests = engine_of("llada"), make_mix(24, seed=9)
    whole = run_all(engine, requests)
    engine.live = engine.live.model_copy(update={"max_num_logits": 7})

    chunked = run_all(engine, requests)

    engine.live = engine.live.model_copy(update={"max_num_logits": 2048})
    assert {n: o.tokens for n, o in chunked.items()} == {n: o.tokens for n, o in whole.items()}


def test_the_same_seed_gives_the_same_tokens_and_another_seed_gives_others() -> None:
    engine = engine_of("llada")
    first = make_request("a", temperature=1.5, seed=1, max_tokens=24)
    again = msgspec.structs.replace(first, request_id="b")
    other = make_request("c", temperature=1.5, seed=2, max_tokens=24)

    outcomes = run_all(engine, [first, again, other])

    assert outcomes["a"].tokens == outcomes["b"].tokens != outcomes["c"].tokens


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**63 - 1, 2**63, 2**64 - 1])
def test_every_64_bit_seed_is_served(seed: int) -> None:
    outcome = run_alone(engine_of("llada"), make_request(temperature=1.0, seed=seed))

    assert len(outcome.tokens) == 16


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e-6])
def test_a_vanishing_temperature_is_greedy(temperature: float) -> None:
    engine = engine_of("llada")
    greedy = run_alone(engine, make_request())

    assert run_alone(engine, make_request(temperature=temperature)).tokens == greedy.tokens


def test_a_huge_temperature_never_produces_the_mask_token() -> None:
    engine = engine_of("llada")
    requests = [make_request(str(s), temperature=1e30, seed=s, max_tokens=32, value=32) for s in range(16)]

    outcomes = run_all(engine, requests)

    mask = engine.runner.model.config.mask_token_id
    assert all(mask not in outcome.tokens for outcome in outcomes.values())
