"""Which operations an engine runs on, and their tile shapes, measured before it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import torch
from dllm_kernels.backend import Backend, Operations, operations

from dllm_server.cpus import usable_cpus
from dllm_server.extras import missing
from dllm_server.memory import EngineLimits
from dllm_server.models.transformer import Transformer
from dllm_server.settings import KernelBackend

if TYPE_CHECKING:
    from dllm_kernels.gpu.warm_up import Sizes

log = structlog.get_logger(__name__)

_SMALLEST = 16  # rows; fewer take as long
_SMALLEST_KEYS = 64
_MOST_KEYS = 65536  # of one measurement, so that it fits beside the weights
_REFRESH_TOKENS = 2048
_WIDE_ROWS, _WIDEST = 2048, 512  # of all spans longer than a block together, and of one
_SMALLEST_WIDE_KEYS, _MOST_WIDE_KEYS = 512, 4096


def pick_backend(wanted: KernelBackend, device: torch.device, head_dim: int) -> Backend:
    """``auto`` takes Triton on CUDA, for heads that its kernels hold."""
    if wanted is KernelBackend.TORCH or (wanted is KernelBackend.AUTO and device.type != "cuda"):
        return Backend.TORCH
    try:
        from dllm_kernels.gpu.jit import MOST_BLOCK_DIM
    except ImportError as error:
        raise missing("kernel_backend triton (which auto takes on CUDA)", ["gpu"], error) from error
    if wanted is KernelBackend.TRITON:
        return Backend.TRITON
    return Backend.TRITON if head_dim <= MOST_BLOCK_DIM else Backend.TORCH


def pick_operations(backend: Backend, model: Transformer, limits: EngineLimits) -> Operations:
    """The backend's operations. Triton's tile shapes come from the table on disk; what it lacks for the sizes
    to come is measured on the device and added."""
    if backend is Backend.TORCH or model.device.type != "cuda":
        return operations(backend)
    from dllm_kernels.gpu import configurations
    from dllm_kernels.gpu.example_inputs import ExpertsShape, ModelShape
    from dllm_kernels.gpu.warm_up import warm_up

    config, device, experts = model.config, model.device, model.config.experts
    shape = ModelShape(
        heads=config.n_heads,
        kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        d_model=config.d_model,
        mlp_width=config.mlp_width if config.dense_layers else 0,
        vocabulary=config.vocab_size,
        dtype=model.dtype,
        device=device,
        turned=config.rotary_dim,
        has_head_norms=config.has_head_norms,
        experts=ExpertsShape(experts.count, experts.width, experts.rule) if experts else None,
    )
    path, name = configurations.default_path(), configurations.device_name(device)
    try:
        table = configurations.ConfigurationTable.load(path, name)
    except configurations.BrokenTableError as error:
        log.warning("kernels are measured anew", reason=str(error))
        table = configurations.ConfigurationTable()
    known = len(table.entries)
    warm_up(shape, sizes_to_come(limits, config.shift), table, cpus=usable_cpus())
    if measured := len(table.entries) - known:
        table.save(path, name)
        log.info("kernels measured", entries=measured, table=str(path))
    torch.cuda.empty_cache()
    return operations(backend, table)


def sizes_to_come(limits: EngineLimits, shift: int) -> Sizes:
    """One size for each bucket of sizes that steps within ``limits`` have."""
    from dllm_kernels.gpu.warm_up import Sizes

    block, longest = limits.block_length, limits.max_model_len
    most_rows = min(limits.max_num_logits, limits.max_num_seqs * block)
    refresh = []
    for length in _powers(_SMALLEST_KEYS, longest):
        window = min(block, max(length // 2, 1))
        refresh.append((max(1, _REFRESH_TOKENS // length), length, window, max(1, (length - window) // 2)))
    block_rows = (2 * block, block) if limits.grid else (block + shift,)  # with the block before it
    reuse = [  # prefills, and refreshes without the prompt, which share kernels with long blocks
        (max(min(limits.max_num_seqs, _WIDE_ROWS // width, _MOST_KEYS // keys), 1), width, keys)
        for width in _powers(2 * block, min(longest, limits.max_num_batched_tokens, _WIDEST))
        for keys in _powers(_SMALLEST_WIDE_KEYS, min(longest + shift, _MOST_WIDE_KEYS))
    ]
    reuse += [
        (requests, rows, keys)
        for requests in _powers(1, limits.max_num_seqs)
        for rows in block_rows
        for keys in _powers(_SMALLEST_KEYS, longest + shift)
        if requests * keys <= _MOST_KEYS
    ]
    return Sizes(
        head_rows=_powers(_SMALLEST, most_rows),
        token_rows=_powers(_SMALLEST, limits.max_num_batched_tokens),
        refresh=tuple(refresh),
        reuse=tuple(reuse),
        causal_block=limits.grid,
        is_sampled=True,
    )


def _powers(smallest: int, largest: int) -> tuple[int, ...]:
    """Powers of two from ``smallest``, then ``largest`` itself."""
    powers = [1 << power for power in range(32) if smallest <= 1 << power < largest]
    return (*powers, largest)
