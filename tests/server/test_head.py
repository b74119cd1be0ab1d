"""Which rows of a batch need their logits whole, and that the others stay on the fused path."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest.mock import patch

import pytest
import torch
from checkpoints import EOS, Size, make_checkpoint
from dllm_kernels.lm_head import Choice, lm_head_choose
from dllm_server.engine.device.head import Head
from dllm_server.engine.device.head_inputs import HeadInputs
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import Generate
from engines import make_engine, make_request, run_all

PLAIN = make_request("plain", temperature=1.0, max_tokens=4, block_length=4)


@cache
def engine() -> Engine:
    return make_engine(make_checkpoint(Path(mkdtemp(prefix="dllm-test-")), Size()))


def needy(**asked: Any) -> Generate:
    return make_request("needy", max_tokens=8, block_length=8, **asked)


def first_step_rows(*requests: Generate) -> tuple[int, int]:
    """Rows of the fused path and of whole logits in the first step of ``requests``."""
    served, seen = engine(), list[tuple[int, int]]()
    run = Head.run

    def noting(head: Head, hidden: torch.Tensor, inputs: HeadInputs, most: int) -> Any:
        seen.append((inputs.split, len(hidden) - inputs.split))
        return run(head, hidden, inputs, most)

    with patch.object(Head, "run", noting):
        run_all(served, requests)
    return seen[0]


@pytest.mark.parametrize(
    ("asked", "whole"),
    [
        ({"temperature": 1.0}, 0),
        ({"top_p": 0.5, "top_k": 3}, 0),  # greedy: nothing to draw
        ({"temperature": 1.0, "top_p": 0.5}, 8),
        ({"temperature": 1.0, "top_k": 3}, 8),
        ({"top_logprobs": 1}, 8),
        ({"min_tokens": 5}, 0),  # nothing to ban
        ({"stop_token_ids": [EOS]}, 0),
        ({"stop_token_ids": [EOS], "min_tokens": 5}, 5),
        ({"stop_token_ids": [EOS], "min_tokens": 99}, 8),
    ],
)
def test_only_rows_that_ask_for_it_have_their_logits_whole(asked: dict[str, Any], whole: int) -> None:
    assert first_step_rows(needy(**asked)) == (8 - whole, whole)
    assert first_step_rows(PLAIN, needy(**asked)) == (12 - whole, whole)


def test_the_fused_path_never_sees_a_row_that_needs_its_logits_whole() -> None:
    rows: list[int] = []

    def counting(hidden: torch.Tensor, *rest: Any) -> Choice:
        rows.append(len(hidden))
        return lm_head_choose(hidden, *rest)

    with patch.object(engine().runner.model.operations, "lm_head_choose", counting):
        run_all(engine(), [PLAIN, needy(top_logprobs=2)])

    assert rows[0] == 4


def test_a_step_without_alternatives_brings_none_back() -> None:
    results = []
    launch = engine().runner.launch

    def noting(*batch: Any) -> Any:
        pending = launch(*batch)
        results.append(pending.result())
        return pending

    with patch.object(engine().runner, "launch", noting):
        run_all(engine(), [PLAIN, needy(temperature=1.0, top_k=3)])

    assert all(result.alternatives is None for result in results)
