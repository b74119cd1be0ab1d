"""Graphs of fixed sizes give what a batch of its own size gives. Replayed here by running them again, in
Triton's interpreter; `test_cuda.py` replays real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import Size, make_checkpoint
from dllm_server.engine.device import step_graphs
from dllm_server.engine.device.step_graphs import StepGraphs
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.request import Phase
from dllm_server.engine.schedule.batch import build_batch
from engines import FIXTURES, collect, make_engine, make_request

from tests.kernels.implementations import HAS_GPU, needs_triton

pytestmark = [needs_triton, pytest.mark.skipif(HAS_GPU, reason="the interpreter stands in for a GPU")]

TOKENS = (20, 33)
SMALL: dict[str, Any] = {"kernel_backend": "triton", "max_num_batched_tokens": 64, "max_num_logits": 16}


@pytest.fixture(scope="module", params=["llada", "dream"])
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder: Path = tmp_path_factory.mktemp(request.param)
    directory = make_checkpoint(folder, Size(family=request.param, n_kv_heads=2, max_model_len=64))
    return make_engine(directory, max_num_seqs=3, max_model_len=48, **SMALL)


@pytest.fixture
def engine(started: Engine) -> Iterator[Engine]:
    yield started
    for request_id in list(started._by_id):
        started.cancel(request_id)


def make_graphs(engine: Engine) -> StepGraphs:
    runner = engine.runner
    graphs = StepGraphs(runner.model, runner.pool, engine.table, runner.on_device, lambda run: run)
    graphs.capture(2, 8 + engine.table.shift, 48)
    return graphs


@pytest.mark.sampled(0.3, of="step graphs")
def test_a_graph_holds_a_refresh_without_the_prompt(engine: Engine) -> None:
    graphs, runner, table = make_graphs(engine), engine.runner, engine.table
    request = make_request(
        prompt=range(1, 20), max_tokens=20, retention_ratio=0.5, value=8.0, prompt_refresh_interval=9
    )
    collect(engine.submit(request), {})
    nobody = np.arange(0)

    with torch.inference_mode():
        collect(engine.step(), {})  # all of the first block
        ((slot, running),) = engine._running.items()
        assert running.phase is Phase.REFRESH
        engine.course.place(running, 20)
        batch = build_batch(nobody, np.array([slot]), table)
        assert (batch.rows, batch.wide_requests) == (20 + table.shift, 1)
        hidden = graphs.forward(batch)
        assert hidden is not None
        packed = runner.pool.k.clone()
        expected = runner._forward(batch, torch.arange(batch.rows))
        torch.testing.assert_close(hidden[: batch.rows], expected)
        torch.testing.assert_close(packed[:, batch.tail_slots], runner.pool.k[:, batch.tail_slots])
        assert graphs.forward(build_batch(np.array([slot]), nobody, table)) is None  # packs in two parts


@pytest.mark.sampled(0.3, of="step graphs")
def test_a_graph_gives_what_the_batch_alone_gives(engine: Engine) -> None:
    graphs, runner = make_graphs(engine), engine.runner
    for number, tokens in enumerate(TOKENS):
        prompt = list(range(1, tokens - 11))
        collect(
            engine.submit(
                make_request(str(number), prompt=prompt, max_tokens=12, retention_ratio=0.5, value=1.0)
            ),
            {},
        )
    nobody, slots = np.arange(0), np.array(list(engine._admit(TOKENS)))

    with torch.inference_mode():
        for slot in slots:
            batch = build_batch(np.array([slot]), nobody, engine.table)
            hidden = graphs.forward(batch)
            assert hidden is not None
            packed = runner.pool.k.clone(), runner.pool.v.clone()
            runner.pool.k.zero_()
            runner.pool.v.zero_()
            rows = torch.arange(batch.rows)
            torch.testing.assert_close(hidden[: batch.rows], runner._forward(batch, rows))
            mine = engine.table.pool_slots[slot, : engine.table.kept[slot]]
            torch.testing.assert_close(packed[0][:, mine], runner.pool.k[:, mine])
            torch.testing.assert_close(packed[1][:, mine], runner.pool.v[:, mine])
            runner.pool.k.copy_(packed[0])
            runner.pool.v.copy_(packed[1])
        batch = build_batch(nobody, slots, engine.table)
        hidden = graphs.forward(batch)
        assert hidden is not None
        expected = runner._forward(batch, torch.arange(batch.rows))
        torch.testing.assert_close(hidden[: batch.rows], expected)
        assert graphs.forward(build_batch(slots, nobody, engine.table)) is None
        assert graphs.forward(build_batch(slots[:1], slots[1:], engine.table)) is None


@pytest.fixture(scope="module")
def block_causal() -> Engine:
    return make_engine(FIXTURES / "sdar", max_num_seqs=4, max_model_len=64, **SMALL)


@pytest.mark.sampled(0.3, of="step graphs")
def test_graphs_hold_blocks_with_and_without_the_one_before_and_a_piece_of_a_prefill(
    block_causal: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, runner, table = block_causal, block_causal.runner, block_causal.table
    for name, value in {"_ROWS_STEP": 8, "_PIECE_STEP": 8, "_MOST_PIECE_ROWS": 32}.items():
        monkeypatch.setattr(step_graphs, name, value)
    graphs = StepGraphs(runner.model, runner.pool, table, runner.on_device, lambda run: run)
    graphs.capture(4, 2 * table.grid, 0)
    rows_of = {(8, 4), (8, 8, 8)}, {(4, 4, 16), (24,)}
    for number in range(4):
        prompt = list(range(1, 25))
        collect(engine.submit(make_request(str(number), prompt=prompt, max_tokens=8, block_length=4)), {})
    while len(engine._running) < 4 or any(
        request.phase is Phase.PREFILL for request in engine._running.values()
    ):
        collect(engine.step(), {})
    slots = np.array(list(engine._running))

    with torch.inference_mode():
        for pieces, sizes in enumerate(rows_of):
            for lengths in sizes:
                for slot, length in zip(slots, lengths, strict=False):
                    table.query(slot, (24 - length, 24), (24, 24))
                batch = build_batch(slots[:0], slots[: len(lengths)], table)
                graph = next(graph for graph in graphs._graphs if graph.holds(batch))
                assert (batch.rows, batch.wide_requests) == (sum(lengths), pieces)
                hidden = graph.forward(batch)
                expected = runner._forward(batch, torch.arange(batch.rows))
                torch.testing.assert_close(hidden[: batch.rows], expected)
