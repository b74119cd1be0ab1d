"""The transformer of each block-causal family computes what its authors' code computes: slow loops over it
give their tokens and forward passes."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from dllm_kernels.backend import Backend, operations
from dllm_server.models.loader import load_model
from dllm_server.models.registry import open_checkpoint
from dllm_server.models.transformer import Transformer
from exact_cases import BLOCK_CAUSAL, FIXTURES, Case, cases_of, plan_of
from exact_oracle import decode, logits_of

from tests.kernels.implementations import HAS_GPU, needs_triton

DEVICE = torch.device("cuda" if HAS_GPU else "cpu")

CASES = [
    pytest.param(fixture, case, id=f"{fixture}-{number}")
    for fixture in BLOCK_CAUSAL
    for number, case in enumerate(cases_of(fixture))
]


@cache
def model_of(fixture: str) -> Transformer:
    return load_model(open_checkpoint(FIXTURES / fixture), torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(("fixture", "case"), CASES)
def test_a_case_gives_the_tokens_and_the_counts_of_the_authors_code(fixture: str, case: Case) -> None:
    decoded = decode(model_of(fixture), case["prompt"], case["max_tokens"], plan_of(case))

    assert decoded.tokens == case["expected"]
    assert decoded.stop_token == case["stop_token"]
    assert decoded.forwards == case["forwards"]
    counted = {
        "prefill_forwards": decoded.prefills,
        "commit_forwards": decoded.commits,
        "edits": decoded.edits,
        "post_steps": decoded.post_steps,
        "block_forwards": decoded.block_forwards,
    }
    assert {name: counted[name] for name in counted if name in case} == {
        name: case[name] for name in counted if name in case
    }
    shorter = min(len(decoded.canvas), len(case["reference_output"]))
    assert decoded.canvas[:shorter] == case["reference_output"][:shorter]


@needs_triton
@pytest.mark.parametrize("fixture", ["sdar_moe", "llada2", "fast_dllm_v2"])
def test_the_kernels_give_what_plain_pytorch_gives(fixture: str) -> None:
    plain = model_of(fixture)
    compiled = load_model(open_checkpoint(FIXTURES / fixture), DEVICE, torch.float32)
    compiled.operations = operations(Backend.TRITON)
    tokens = list(range(3, 3 + 9))

    found = logits_of(compiled, tokens, 4)

    torch.testing.assert_close(found.cpu(), logits_of(plain, tokens, 4), rtol=1e-3, atol=1e-3)
