from __future__ import annotations

import pytest
import torch
from dllm_kernels.backend import Backend
from dllm_server.engine.device.kernel_choice import pick_backend, sizes_to_come
from dllm_server.engine.process.startup import DeviceError
from dllm_server.memory import EngineLimits
from dllm_server.settings import KernelBackend
from engines import FIXTURE, start_engine_in_process
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.implementations import needs_triton


@needs_triton
@pytest.mark.parametrize(
    ("wanted", "device", "head_dim", "picked"),
    [
        (KernelBackend.AUTO, "cpu", 64, Backend.TORCH),
        (KernelBackend.AUTO, "cuda", 128, Backend.TRITON),
        (KernelBackend.AUTO, "cuda", 160, Backend.TORCH),
        (KernelBackend.TORCH, "cuda", 64, Backend.TORCH),
        (KernelBackend.TRITON, "cuda", 64, Backend.TRITON),
    ],
)
def test_auto_takes_triton_for_heads_that_its_kernels_hold(
    wanted: KernelBackend, device: str, head_dim: int, picked: Backend
) -> None:
    assert pick_backend(wanted, torch.device(device), head_dim) is picked


def test_a_cpu_engine_runs_on_pytorch_and_launches_nothing_ahead() -> None:
    engine = start_engine_in_process(FIXTURE).engine

    assert engine.runner.model.operations.backend is Backend.TORCH
    assert not engine.runs_ahead


def test_triton_without_a_gpu_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    with pytest.raises(DeviceError, match="kernel_backend triton needs a CUDA device: use auto or torch"):
        start_engine_in_process(FIXTURE, kernel_backend="triton")


@needs_triton
@given(
    longest=st.integers(1, 5000),
    tokens=st.integers(1, 20000),
    seqs=st.integers(1, 300),
    logits=st.integers(1, 4096),
    block=st.integers(1, 64),
    is_exact=st.booleans(),
)
def test_every_bucket_within_the_limits_is_measured(
    longest: int, tokens: int, seqs: int, logits: int, block: int, is_exact: bool
) -> None:
    from dllm_kernels.gpu.configurations import bucket

    block = min(block, longest)
    limits = EngineLimits(longest, tokens, seqs, logits, block, 1.0, 16, grid=block if is_exact else 0)

    sizes = sizes_to_come(limits, shift=0)

    assert {bucket(rows) for rows in sizes.token_rows} >= {bucket(tokens), bucket(min(tokens, 16))}
    assert bucket(longest) in {bucket(length) for _, length, _, _ in sizes.refresh}
    assert {bucket(requests) for requests, _, _ in sizes.reuse} >= {1}
    assert max(sizes.head_rows) == min(logits, seqs * limits.block_length)
    assert all(1 <= kept <= length for _, length, _, kept in sizes.refresh)
    widest = max(width for _, width, _ in sizes.reuse)
    assert widest <= max(longest, 2 * block)
    assert bucket(widest) >= bucket(min(longest, tokens, 512)) or longest <= 2 * block
    assert {rows for _, rows, _ in sizes.reuse} >= ({block, 2 * block} if is_exact else {block})
    assert max(keys for _, _, keys in sizes.reuse) == longest
