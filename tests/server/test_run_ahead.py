"""A step that is launched before the result of the one before it is read changes no answer."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import pytest
from checkpoints import Size, make_checkpoint
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import Generate
from dllm_server.settings import Strategy
from engines import Outcome, check_ends, make_engine, make_request, run_all, run_with_cancels, used_pages
from faulty_runner import install
from mixes import make_mix

SIZES = {"llada": Size(n_kv_heads=2), "dream": Size(family="dream", n_kv_heads=2)}


@cache
def engine_of(name: str) -> Engine:
    directory = make_checkpoint(Path(mkdtemp(prefix="dllm-test-")), SIZES[name])
    return make_engine(directory, max_num_seqs=12, max_num_batched_tokens=160, kv_pool_bytes=16 * 1024**2)


@pytest.fixture(params=SIZES)
def engine(request: pytest.FixtureRequest) -> Engine:
    found = engine_of(request.param)
    install(found)
    found.throttle.tokens, found.runs_ahead = None, False
    return found


def with_quota(request: Generate) -> Generate:
    """The request with a strategy whose steps commit a known number of tokens."""
    diffusion = msgspec.structs.replace(request.diffusion, strategy=Strategy.QUOTA, value=2.0)
    return msgspec.structs.replace(request, diffusion=diffusion)


def answers(outcomes: dict[str, Outcome]) -> dict[str, tuple[list[int], str]]:
    return {name: (outcome.tokens, type(outcome.end).__name__) for name, outcome in outcomes.items()}


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_running_ahead_gives_the_same_answers(engine: Engine, share: float) -> None:
    dice = random.Random(share)
    requests = [with_quota(r) if dice.random() < share else r for r in make_mix(40, seed=21)]
    behind = run_all(engine, requests)
    engine.runs_ahead = True

    ahead = run_all(engine, requests)

    assert answers(ahead) == answers(behind)
    for name, outcome in ahead.items():
        assert outcome.stats.forward_passes == behind[name].stats.forward_passes
        assert outcome.stats.refresh_passes == behind[name].stats.refresh_passes
    assert not engine.has_work
    assert used_pages(engine) == 0


def test_a_step_is_on_its_way_while_the_next_is_planned(engine: Engine) -> None:
    engine.runs_ahead = True
    engine.submit(make_request(max_tokens=16, block_length=8, value=2.0))

    first, second = engine.step(), engine.step()

    assert engine._launched is not None
    assert first == second == []
    assert engine.stats.committed_tokens >= 2
    run_all(engine, [])


@pytest.mark.parametrize("seed", range(6))
def test_cancels_and_errors_between_launch_and_result_lose_nothing(engine: Engine, seed: int) -> None:
    dice = random.Random(seed)
    requests = [with_quota(request) for request in make_mix(30, seed=seed)]
    undisturbed = run_all(engine, requests)
    engine.runs_ahead = True
    install(engine, {dice.randrange(120) for _ in range(8)})
    outcomes = run_with_cancels(engine, requests, dice, share=0.1)

    assert used_pages(engine) == 0
    check_ends(requests, outcomes, undisturbed)
