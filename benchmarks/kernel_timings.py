"""What ``benchmarks.gpu_kernels`` times: LLaDA-8B's shapes on a GPU, toy shapes in the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from dllm_kernels.backend import Operations
from dllm_kernels.gpu import few_rows, kv_select, lm_head, paged_attention, varlen_attention
from dllm_kernels.gpu.block_layers import BLOCKS, apply_layer, block_layers
from dllm_kernels.gpu.configurations import ConfigurationTable
from dllm_kernels.gpu.example_inputs import ModelShape, refresh_inputs, reuse_inputs
from dllm_kernels.gpu.operations import TritonOperations
from dllm_kernels.gpu.timing import median_seconds, medians_in_turn
from dllm_kernels.gpu.warm_up import Sizes
from dllm_kernels.lm_head import Sampling
from dllm_kernels.rope import HeadNorms
from torch import Tensor

from benchmarks.kernel_timing import Timing

HEAD = "lm_head"
SERVED = "as served"  # the variant that the table of measurements picks
PAGED = "paged_attention"


@dataclass(frozen=True, slots=True)
class Cases:
    """``small`` and ``full``: shape, tokens a request and LM head rows of the checks. ``shape`` and ``sizes``
    are measured."""

    small: tuple[ModelShape, int, int]
    full: tuple[ModelShape, int, int]
    shape: ModelShape
    sizes: Sizes


def cases(*, is_quick: bool) -> Cases:
    if not torch.cuda.is_available():
        toy = ModelShape(4, 2, 16, 64, 48, 300, torch.float32, torch.device("cpu"))
        sizes = Sizes((3,), (4,), ((1, 16, 4, 6),), ((2, 4, 20),))
        return Cases((toy, 20, 5), (toy, 24, 6), toy, sizes)
    device = torch.device("cuda")
    small = ModelShape(8, 2, 64, 256, 512, 1000, torch.float32, device)
    llada = ModelShape(32, 32, 128, 4096, 12288, 126464, torch.bfloat16, device)
    head_rows = (32, 2048) if is_quick else (32, 64, 128, 256, 512, 1024, 2048)
    sizes = Sizes(
        head_rows=head_rows,
        token_rows=(32, 2048) if is_quick else (32, 256, 2048, 4096),
        refresh=((2, 556, 32, 262),)
        if is_quick
        else ((1, 556, 32, 262), (2, 556, 32, 262), (8, 556, 32, 262)),
        reuse=((64, 32, 332),) if is_quick else ((1, 32, 332), (8, 32, 332), (64, 32, 332)),
        is_sampled=not is_quick,
    )
    return Cases((small, 100, 64), (llada, 556, 256), llada, sizes)


def measure(cases: Cases, table: ConfigurationTable) -> Iterator[Timing]:
    shape, sizes = cases.shape, cases.sizes
    bandwidth = copy_bandwidth(shape.device)
    for rows in sizes.head_rows:
        yield from _lm_head(shape, rows, table, is_sampled=sizes.is_sampled)
    for reuse in sizes.reuse:
        yield _paged(shape, reuse, table, bandwidth)
    for refresh in sizes.refresh:
        yield from _refresh(shape, refresh, table, bandwidth)
    for rows in sizes.token_rows:
        yield from _rows(shape, rows, table, bandwidth)
        if rows <= few_rows.MOST_ROWS:
            yield from _linear(shape, rows, table, bandwidth)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second of a large copy, read and written."""
    size = 2 * 1024**3 if device.type == "cuda" else 1024**2
    source = torch.ones(size, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    return 2 * size / median_seconds(lambda: target.copy_(source), device)


def _lm_head(
    shape: ModelShape, rows: int, table: ConfigurationTable, *, is_sampled: bool
) -> Iterator[Timing]:
    hidden, weight = shape.random(rows, shape.d_model), shape.random(shape.vocabulary, shape.d_model)
    banned = torch.zeros(1, dtype=torch.int64, device=shape.device)
    ones, keys = torch.ones(rows, device=shape.device), torch.arange(rows, device=shape.device)
    sampled = Sampling(ones, keys)
    for sampling in (None, sampled) if is_sampled else (None,):
        way = "greedy" if sampling is None else "sampled"
        for variant in (None, *lm_head.Variant):

            def run(
                variant: lm_head.Variant | None = variant, sampling: Sampling | None = sampling
            ) -> object:
                return lm_head.lm_head_choose(table, hidden, weight, banned, sampling, 2048, variant=variant)

            floor, seconds = medians_in_turn([partial(torch.mm, hidden, weight.t()), run], shape.device)
            peak = peak_mebibytes(run, shape.device)
            label = f"{HEAD} {variant or SERVED} {way}"
            note = f"{peak:.1f} MiB above its inputs"
            yield Timing(label, f"{rows} rows", seconds, floor, note, peak)


def peak_mebibytes(run: Callable[[], object], device: torch.device) -> float:
    """Memory that a call allocates at its peak; 0 on a CPU."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 1024**2


def _paged(
    shape: ModelShape, size: tuple[int, int, int], table: ConfigurationTable, bandwidth: float
) -> Timing:
    inputs = reuse_inputs(shape, *size)
    moved = bytes_of(inputs.q, inputs.out) + inputs.keys.slots.numel() * _token_bytes(shape)
    seconds = median_seconds(
        lambda: paged_attention.paged_attention(
            table, inputs.q, inputs.k_pool, inputs.v_pool, [(inputs.spans, inputs.keys)], inputs.out
        ),
        shape.device,
        flushes_cache=True,
    )
    note = f"{moved / seconds / bandwidth:.0%} of the copy bandwidth"
    requests, block, keys = size
    label = f"{requests} x {block} queries, {keys} keys"
    return Timing(PAGED, label, seconds, moved / bandwidth, note)


def _refresh(
    shape: ModelShape, size: tuple[int, int, int, int], table: ConfigurationTable, bandwidth: float
) -> Iterator[Timing]:
    inputs = refresh_inputs(shape, *size)
    requests, length, _, kept = size
    label = f"{requests} x {length} tokens"
    floor = bytes_of(inputs.q, inputs.k, inputs.v, inputs.out) / bandwidth
    operations = 4 * requests * length**2 * shape.heads * shape.head_dim
    for variant in varlen_attention.Variant:
        if variant is varlen_attention.Variant.LIBRARY and shape.device.type != "cuda":
            continue
        seconds = median_seconds(
            lambda variant=variant: varlen_attention.varlen_attention(  # type: ignore[misc]
                table, inputs.q, inputs.k, inputs.v, [inputs.spans], inputs.out, variant=variant
            ),
            shape.device,
        )
        note = f"{operations / seconds / 1e12:.0f} TFLOP/s"
        yield Timing(f"varlen_attention {variant}", label, seconds, floor, note)

    def select() -> None:
        kv_select.select_and_pack(
            table, inputs.q, inputs.k, inputs.v, [inputs.pack], inputs.k_pool, inputs.v_pool
        )

    moved = bytes_of(inputs.k) + 2 * requests * kept * _token_bytes(shape)
    note = f"{launches(select, shape.device)} launches"
    seconds = median_seconds(select, shape.device, flushes_cache=True)
    yield Timing("select_and_pack", f"{label}, {kept} kept", seconds, moved / bandwidth, note)


def launches(run: Callable[[], object], device: torch.device) -> int:
    """Kernels that a call starts on the device; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    run()
    torch.cuda.synchronize(device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize(device)
    return sum(event.device_type.name == "CUDA" for event in profile.events())


def _rows(shape: ModelShape, rows: int, table: ConfigurationTable, bandwidth: float) -> Iterator[Timing]:
    x, gain = shape.random(rows, shape.d_model), shape.random(shape.d_model)
    gate_up = shape.random(rows, 2 * shape.mlp_width)
    qkv = shape.random(rows, shape.qkv_width)
    cos, sin = (torch.ones(rows, shape.head_dim, device=shape.device) for _ in range(2))
    k_pool, v_pool = (shape.random(16 + rows, shape.kv_heads, shape.head_dim) for _ in range(2))
    slots = torch.arange(16, 16 + rows, device=shape.device)
    heads = shape.heads, shape.kv_heads
    norms = HeadNorms(qkv[0, : shape.head_dim].clone(), qkv[0, : shape.head_dim].clone(), 1e-6)
    moved = {
        "rms_norm": 2 * bytes_of(x),
        "silu_and_multiply": bytes_of(gate_up) * 3 // 2,
        "rope_to_pages": 2 * bytes_of(qkv) + bytes_of(cos, sin),
        "rope_to_pages with norms": 2 * bytes_of(qkv) + bytes_of(cos, sin),
    }
    implementations: dict[str, Operations] = {"triton": TritonOperations(table), "torch": Operations()}
    for name, run in implementations.items():
        calls: dict[str, Callable[[], object]] = {
            "rms_norm": partial(run.rms_norm, x, gain, 1e-5),
            "silu_and_multiply": partial(run.silu_and_multiply, gate_up),
            "rope_to_pages": partial(run.rope_to_pages, qkv, cos, sin, *heads, k_pool, v_pool, slots),
            "rope_to_pages with norms": partial(
                run.rope_to_pages, qkv, cos, sin, *heads, k_pool, v_pool, slots, norms
            ),
        }
        for kernel, call in calls.items():
            seconds = median_seconds(call, shape.device, flushes_cache=True)
            yield Timing(f"{kernel} {name}", f"{rows} rows", seconds, moved[kernel] / bandwidth)


def _linear(shape: ModelShape, rows: int, table: ConfigurationTable, bandwidth: float) -> Iterator[Timing]:
    """Each linear layer of a block, and the four in a row, over several blocks' weights so that no cache
    holds them."""
    layers = block_layers(shape)
    weights = [shape.random(BLOCKS, *size) for _, size in layers]
    inputs = {width: shape.random(rows, width) for _, (_, width) in layers}
    residual = shape.random(rows, shape.d_model)
    implementations: dict[str, Operations] = {"triton": TritonOperations(table), "torch": Operations()}
    for name, run in implementations.items():

        def call(layer: int, block: int, run: Operations = run) -> None:
            kernel, (_, width) = layers[layer]
            apply_layer(run, kernel, inputs[width], weights[layer][block], residual)

        every = tuple(range(len(layers)))
        for chosen in (*((layer,) for layer in every), every):

            def calls(chosen: tuple[int, ...] = chosen, call: Callable[[int, int], None] = call) -> None:
                for block in range(BLOCKS):
                    for layer in chosen:
                        call(layer, block)

            moved = bytes_of(*(weights[layer][0] for layer in chosen))
            seconds = median_seconds(calls, shape.device) / BLOCKS
            label = "linear layers of a block"
            if len(chosen) == 1:
                kernel, (columns, width) = layers[chosen[0]]
                label = f"{kernel} {width} to {columns}"
            note = f"{moved / seconds / 1e12:.2f} TB/s"
            yield Timing(f"{label} {name}", f"{rows} rows", seconds, moved / bandwidth, note)


def bytes_of(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _token_bytes(shape: ModelShape) -> int:
    """K and V of one token."""
    return 2 * shape.kv_heads * shape.head_dim * torch.empty(0, dtype=shape.dtype).element_size()
