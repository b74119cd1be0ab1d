"""Which positions a refresh recomputes, where their K/V lie, and what that takes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from checkpoints import Size, make_checkpoint
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.admission import Capacity
from dllm_server.engine.requests.refresh import fixed_tokens, refresh_end, takes_prompt
from dllm_server.engine.requests.request import Request
from dllm_server.engine.requests.slots import SlotTable
from engines import make_engine, make_request, run_all, run_alone, used_pages
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("prompt", "interval", "shift", "fixed"), [(9, 1, 0, 0), (9, 2, 0, 9), (9, 8, 1, 8), (1, 8, 1, 0)]
)
def test_what_a_refresh_may_leave_out_is_the_prompt(
    prompt: int, interval: int, shift: int, fixed: int
) -> None:
    assert fixed_tokens(prompt, interval, shift) == fixed


@pytest.mark.parametrize(
    ("interval", "blocks"),
    [(1, "PPPPPPPP"), (2, "P.P.P.P."), (3, "P..P..P."), (8, "P......."), (1000, "P.......")],
)
def test_the_prompt_takes_part_in_the_first_step_of_every_so_many_blocks(interval: int, blocks: str) -> None:
    fixed = fixed_tokens(5, interval, 0)
    first = "".join("P" if takes_prompt(fixed, interval, block, 0) else "." for block in range(8))
    later = {takes_prompt(fixed, interval, block, step) for block in range(8) for step in (1, 2)}

    assert first == blocks
    assert later == {interval == 1}


@pytest.mark.parametrize(("window", "end"), [(None, 50), (0, 28), (8, 36), (22, 50), (100, 50)])
def test_a_refresh_reaches_so_many_masks_behind_the_block(window: int | None, end: int) -> None:
    assert refresh_end(28, 50, window) == end


@given(
    prompt=st.integers(2, 40),
    generated=st.integers(1, 40),
    block_length=st.integers(1, 50),
    ratio=st.floats(0.001, 1),
    page=st.integers(1, 16),
    shift=st.integers(0, 1),
    interval=st.sampled_from((2, 8, 1000)),
)
def test_pages_hold_what_is_kept_of_the_prompt_and_all_else_exactly(
    prompt: int, generated: int, block_length: int, ratio: float, page: int, shift: int, interval: int
) -> None:
    message = make_request(
        prompt=[1] * prompt,
        max_tokens=generated,
        block_length=block_length,
        retention_ratio=ratio,
        prompt_refresh_interval=interval,
    )
    capacity = Capacity(100, 100, page, vocab_size=10, shift=shift, mask_token_id=9)
    pages = capacity.pages_for(message)
    table = SlotTable(1, 100, max_pages=100 // page + 1, page_size=page, mask_token_id=9, shift=shift)
    table.fill(0, Request(message, 0.0, pages), list(range(1, pages + 1)))
    fixed, end = prompt - shift, prompt + generated

    used = set()
    for start in range(prompt, end, block_length):
        table.start_block(0, start)
        own = np.arange(fixed, end) - table.origin[0]
        entries = [*range(int(table.kept[0])), *own.tolist()]
        assert len(entries) == len(set(entries)) == table.keys[0]
        used.update(entries)

    assert used == set(range(max(used) + 1))
    assert (pages - 1) * page <= max(used) < pages * page


@cache
def engine_of(family: str) -> Engine:
    size = Size(family=family, n_kv_heads=2, seed=3)
    return make_engine(make_checkpoint(Path(mkdtemp(prefix="dllm-test-")), size))


def tokens_of(engine: Engine) -> int:
    return sum(engine.stats.tokens.values())


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize(
    ("interval", "window", "refreshed"),
    [
        (1, None, 4 * 56),
        (2, None, 2 * 56 + 2 * 16),
        (8, None, 56 + 3 * 16),
        (8, 0, 56 + 8 + 12 + 16),
        (8, 2, 56 + 10 + 14 + 16),
    ],
)
def test_the_tokens_that_are_forwarded_are_those_of_the_scope(
    family: str, interval: int, window: int | None, refreshed: int
) -> None:
    engine = engine_of(family)
    shift, before = engine.table.shift, tokens_of(engine)
    request = make_request(
        prompt=range(1, 41),
        max_tokens=16,
        block_length=4,
        value=1.0,
        prompt_refresh_interval=interval,
        refresh_window=window,
    )

    outcome = run_alone(engine, request)

    narrow = 4 - {1: 4, 2: 2, 8: 1}[interval]
    assert tokens_of(engine) - before == refreshed + narrow * shift + 4 * 3 * (4 + shift)
    assert (outcome.stats.forward_passes, outcome.stats.refresh_passes) == (16, 4)
    assert used_pages(engine) == 0


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_requests_of_all_scopes_in_one_batch_give_what_each_gives_alone(family: str) -> None:
    engine = engine_of(family)
    requests = [
        make_request(
            f"{interval}-{window}-{number}",
            prompt=range(1, 7 * number),
            max_tokens=8 + number,
            block_length=2 + number,
            refresh_interval=(None, 2)[number % 2],
            retention_ratio=0.5,
            prompt_refresh_interval=interval,
            refresh_window=window,
        )
        for interval, window in [(1, None), (2, None), (1000, 0), (3, 4)]
        for number in (1, 2)
    ]
    alone = {request.request_id: run_alone(engine, request).tokens for request in requests}

    together = run_all(engine, requests)

    assert {name: outcome.tokens for name, outcome in together.items()} == alone
    assert used_pages(engine) == 0
