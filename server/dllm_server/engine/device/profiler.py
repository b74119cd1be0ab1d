"""Measures what a full step takes on the device, so that the budget rests on readings and not only on the
model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from dllm_kernels import lm_head
from dllm_kernels.whole_logits import WholeRows, choose_whole

from dllm_server.engine.accounts.device_memory import DeviceMemory, is_out_of_memory
from dllm_server.engine.device.kv_pool import KvPool
from dllm_server.engine.device.made_up import MadeUp, pages_of
from dllm_server.engine.requests.messages import MOST_ALTERNATIVES, Sampling
from dllm_server.memory import MOST_WHOLE_ROWS, EngineLimits
from dllm_server.models.transformer import Transformer

_CPU_TOKENS = 512  # a CPU's activations grow linearly; a whole budget would take minutes on a large model
_MARGIN = 1.05
_SMALLEST_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Profile:
    """Peak transient bytes of the largest step the settings allow; ``tokens`` and ``rows`` were really run.

    ``oom_events`` counts how often the device refused before a step fitted.
    """

    activations_bytes: int
    logits_bytes: int
    tokens: int
    rows: int
    oom_events: int


def measure(model: Transformer, memory: DeviceMemory, limits: EngineLimits) -> Profile:
    """Run a refresh, or a prefill, of ``max_num_batched_tokens`` and a head of ``max_num_logits`` rows; on a
    CPU a part of them, scaled up.

    When the device refuses a size, half of it is tried, and the result scaled, so that the budget can say
    what does not fit.
    """
    is_cpu = model.device.type == "cpu"
    tokens = min(limits.max_num_batched_tokens, _CPU_TOKENS) if is_cpu else limits.max_num_batched_tokens
    rows = min(limits.max_num_logits, _CPU_TOKENS) if is_cpu else limits.max_num_logits
    activations, tokens, oom_tokens = _largest(tokens, lambda size: _long_peak(model, memory, limits, size))
    logits, rows, oom_rows = _largest(rows, lambda size: _head_peak(model, memory, size))
    return Profile(
        activations_bytes=int(activations * limits.max_num_batched_tokens / tokens * _MARGIN),
        logits_bytes=int(logits * limits.max_num_logits / rows * _MARGIN),
        tokens=tokens,
        rows=rows,
        oom_events=oom_tokens + oom_rows,
    )


def _largest(size: int, peak_at: Callable[[int], int]) -> tuple[int, int, int]:
    """Peak bytes at ``size`` or the largest half of it that runs, that size, and the refusals on the way."""
    refusals = 0
    while True:
        try:
            return peak_at(size), size, refusals
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or size <= _SMALLEST_TOKENS:
                raise
            refusals += 1
            size //= 2
        _release_cached()


def _long_peak(model: Transformer, memory: DeviceMemory, limits: EngineLimits, tokens: int) -> int:
    length = min(limits.max_model_len, tokens)
    requests = MadeUp.of(model, limits, max(1, tokens // length), length, limits.retention_ratio, Sampling())
    pages = pages_of(limits, length, limits.retention_ratio, model.config.shift)
    runner = requests.runner(model, KvPool.for_model(model, pages, limits.page_size))
    batch = requests.long_step(tokens)
    _release_cached()
    before = memory.used_bytes()
    memory.reset_peak()
    runner.run(batch, limits.max_num_logits)
    return max(memory.peak_bytes() - before, 0) * tokens // batch.rows  # whole sequences may leave a rest


@torch.inference_mode()
def _head_peak(model: Transformer, memory: DeviceMemory, rows: int) -> int:
    """The larger of the fused path's and the one of rows that ask for everything their logits can give."""
    hidden = torch.zeros(rows, model.config.d_model, dtype=model.dtype, device=model.device)
    banned = torch.tensor([model.config.mask_token_id], device=model.device)
    ones, zeros = torch.ones(rows, device=model.device), torch.zeros_like(hidden[:, 0], dtype=torch.int64)
    allowed = torch.full((rows, -(-model.lm_head.shape[0] // 8)), 255, dtype=torch.uint8, device=model.device)
    sampling = lm_head.Sampling(ones, zeros)
    whole = WholeRows(sampling, 0.5 * ones, zeros, zeros[:, None], allowed, MOST_ALTERNATIVES)
    _release_cached()
    before = memory.used_bytes()
    memory.reset_peak()
    model.operations.lm_head_choose(hidden, model.lm_head, banned, None, rows)
    choose_whole(hidden, model.lm_head, banned, whole, min(rows, MOST_WHOLE_ROWS))
    return max(memory.peak_bytes() - before, 0)


def _release_cached() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
