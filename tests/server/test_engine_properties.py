"""Random schedules of submit, cancel, step and out-of-memory errors: what must hold at every step."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from unittest.mock import patch

import numpy as np
import pytest
import torch
from checkpoints import MASK, Size, make_checkpoint
from dllm_kernels import lm_head
from dllm_kernels.commit import MASKED
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import FailureReason, Generate
from engines import Outcome, collect, make_engine, run_all, used_pages
from faulty_runner import install
from hypothesis import given, settings
from hypothesis import strategies as st
from mixes import make_mixed_request

FAMILIES = ("llada", "dream")
LONGEST = 48


@cache
def engine_of(family: str) -> Engine:
    """A small pool and few slots, so that requests wait for tokens, pages and slots alike."""
    directory = make_checkpoint(
        Path(mkdtemp(prefix="dllm-test-")), Size(family=family, n_kv_heads=2, d_model=16, max_model_len=64)
    )
    page_bytes = 2 * 2 * 2 * 4 * 4 * 4  # K and V, layers, heads, head_dim, float32, page size
    return make_engine(
        directory,
        max_num_batched_tokens=96,
        max_num_seqs=6,
        max_num_logits=5,
        kv_pool_bytes=41 * page_bytes,
        aging_steps=4,
        max_model_len=LONGEST,
    )


class Checks:
    """What holds at every step, whatever happens."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.seen = engine, dict[str, list[int]]()

    def before_step(self) -> None:
        table = self.engine.table
        self.canvas = table.token_ids.copy()
        self.masked = table.is_masked.copy()
        self.blocks = {
            request.request_id: (slot, int(table.block_start[slot]), int(table.block_end[slot]))
            for slot, request in self.engine._running.items()
        }
        self.budget = self.engine.token_budget

    def after_step(self) -> None:
        engine, table = self.engine, self.engine.table
        running = engine._running
        owned = sum(request.pages for request in running.values())
        assert used_pages(engine) == owned
        assert len(engine._free_slots) + len(running) == table.slots
        assert len(running) <= engine.live.max_num_seqs
        assert not set(engine._free_slots) & set(running)
        pages = [page for slot in running for page in engine.course.store.held(slot)]
        assert len(pages) == len(set(pages))
        assert 0 not in pages
        for slot, request in running.items():
            self._check_canvas(slot, request.message)

    def _check_canvas(self, slot: int, message: Generate) -> None:
        table, prompt = self.engine.table, len(message.prompt)
        assert table.token_ids[slot, :prompt].tolist() == message.prompt
        assert not table.is_masked[slot, :prompt].any()
        end = prompt + message.max_tokens
        if message.request_id in self.blocks:
            _, start, stop = self.blocks[message.request_id]
            for part in (slice(0, start), slice(stop, end)):
                assert (table.token_ids[slot, part] == self.canvas[slot, part]).all()
                assert (table.is_masked[slot, part] == self.masked[slot, part]).all()
            changed = table.token_ids[slot, :end] != self.canvas[slot, :end]
            assert not (changed & ~self.masked[slot, :end]).any()
        device = self.engine.runner.on_device.canvas.view(table.slots + 1, -1)[slot, :end]
        canvas = np.where(table.is_masked[slot, :end], MASKED, table.token_ids[slot, :end])
        assert device.tolist() == canvas.tolist()
        committed = table.token_ids[slot, prompt:end][~table.is_masked[slot, prompt:end]]
        assert MASK not in committed.tolist()


@settings(max_examples=12, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    seed=st.integers(0, 2**32),
    refuse=st.sets(st.integers(0, 60), max_size=6),
)
def test_a_random_schedule_keeps_every_invariant(family: str, seed: int, refuse: set[int]) -> None:
    engine, dice = engine_of(family), random.Random(seed)
    runner, checks = install(engine, refuse), Checks(engine)
    engine.throttle.tokens = None
    outcomes: dict[str, Outcome] = {}
    submitted: list[str] = []
    logits_rows: list[int] = []
    real = lm_head.float32_logits

    def recording(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits_rows.append(len(hidden))
        return real(hidden, weight)

    with patch.object(lm_head, "float32_logits", recording):
        for number in range(1000):
            if number < 60 and dice.random() < 0.4:
                request = make_mixed_request(f"r{number}", dice, longest=LONGEST)
                collect(engine.submit(request), outcomes)
                submitted.append(request.request_id)
            if submitted and number < 60 and dice.random() < 0.15:
                collect(engine.cancel(dice.choice(submitted)), outcomes)
            if number >= 60 and not engine.has_work:
                break
            checks.before_step()
            steps = len(runner.rows)
            collect(engine.step(), outcomes)
            checks.after_step()
            assert all(rows <= checks.budget for rows in runner.rows[steps:])

    assert not engine.has_work
    assert used_pages(engine) == 0
    assert set(outcomes) == set(submitted)
    assert all(len(outcome.ends) == 1 for outcome in outcomes.values())
    assert all(rows <= engine.live.max_num_logits for rows in logits_rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_admitted_request_waits_longer_than_the_stated_bound(family: str) -> None:
    engine, dice = engine_of(family), random.Random(5)
    install(engine)
    engine.throttle.tokens = None
    for number in range(40):
        engine.submit(make_mixed_request(f"r{number}", dice, longest=LONGEST))
    longest_wait = 0

    def look(step: int) -> None:
        nonlocal longest_wait
        waits = [engine._step - request.last_step for request in engine._running.values()]
        longest_wait = max([longest_wait, *waits])

    run_all(engine, [], after_step=look)

    assert longest_wait <= engine.aging_steps + engine.live.max_num_seqs


def test_a_request_id_in_use_is_refused_and_the_first_one_goes_on() -> None:
    engine, dice = engine_of("llada"), random.Random(6)
    install(engine)
    request = make_mixed_request("twice", dice, longest=LONGEST)
    engine.submit(request)

    (failed,) = engine.submit(request)

    outcomes = run_all(engine, [])
    assert failed.reason is FailureReason.TOO_LARGE
    assert outcomes["twice"].is_complete
