"""Compile and measure before serving: the best configuration of every kernel at the shapes to come.

Nothing here runs while requests are served; a size whose bucket was not warmed up takes the first candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from triton.runtime.errors import OutOfResources

from dllm_kernels.gpu import (
    expert_order,
    experts,
    few_rows,
    kv_select,
    linear,
    lm_head,
    paged_attention,
    rms_norm,
    rope,
    routing,
    swiglu,
    varlen_attention,
)
from dllm_kernels.gpu.block_layers import BLOCKS, apply_layer, block_layers
from dllm_kernels.gpu.configurations import Configuration, ConfigurationTable, Key, candidates
from dllm_kernels.gpu.example_inputs import (
    ExpertsShape,
    ExpertWeights,
    ModelShape,
    expert_weights,
    refresh_inputs,
    reuse_inputs,
    routing_inputs,
)
from dllm_kernels.gpu.jit import compile_at_once, is_compile_only
from dllm_kernels.gpu.operations import TritonOperations
from dllm_kernels.gpu.projection import can_project
from dllm_kernels.gpu.timing import medians_in_turn
from dllm_kernels.lm_head import Sampling

REPEATS = 10

Choice = TypeVar("Choice")
Name = TypeVar("Name", bound=str)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes to measure.

    Attributes:
        head_rows: rows of the LM head.
        token_rows: rows of a step, for the kernels that work row by row and for experts; for the linear
            layers those that are few.
        refresh: requests, tokens a request, block and kept tokens.
        reuse: requests, rows and keys a request.
        causal_block: of the latter, see ``PagedKeys``.
        is_sampled: also the LM head at a temperature above 0.
    """

    head_rows: tuple[int, ...] = ()
    token_rows: tuple[int, ...] = ()
    refresh: tuple[tuple[int, int, int, int], ...] = ()
    reuse: tuple[tuple[int, int, int], ...] = ()
    causal_block: int = 0
    is_sampled: bool = False


def warm_up(shape: ModelShape, sizes: Sizes, table: ConfigurationTable, *, cpus: int) -> None:
    """Measure every candidate at ``sizes`` and put the best into ``table``; what it holds already is not
    measured again. On a GPU all candidates are compiled first, a thread a CPU."""
    if shape.device.type == "cuda":
        with compile_at_once(cpus):
            _visit(shape, sizes, table.copy())
    _visit(shape, sizes, table)


def _visit(shape: ModelShape, sizes: Sizes, table: ConfigurationTable) -> None:
    for rows in sizes.head_rows:
        for is_sampled in (False, True) if sizes.is_sampled else (False,):
            _lm_head(shape, rows, table, is_sampled=is_sampled)
    for rows in sizes.token_rows:
        _row_kernels(shape, rows, table)
        if rows <= few_rows.MOST_ROWS:
            for kernel, size in block_layers(shape):
                _linear_layer(shape, kernel, rows, size, table)
    if shape.experts and sizes.token_rows:
        weights = expert_weights(shape, shape.experts)
        for rows in sizes.token_rows:
            _experts(shape, shape.experts, weights, rows, table)
    for requests, length, block, kept in sizes.refresh:
        _refresh(shape, (requests, length, block, kept), table)
    for requests, rows, keys in sizes.reuse:
        _reuse(shape, (requests, rows, keys, sizes.causal_block), table)


def choose_configuration(
    kernel: str,
    key: Key,
    table: ConfigurationTable,
    device: torch.device,
    run: Callable[[Configuration], object],
) -> None:
    """Put the fastest candidate into the table, where it holds none. A candidate too large for the device is
    left out."""
    if table.holds(kernel, key):
        return
    runs = [(candidate, partial(run, candidate)) for candidate in candidates(kernel, key)]
    fitting = [(candidate, attempt) for candidate, attempt in runs if _fits(attempt)]
    table.put(kernel, key, _fastest(fitting or runs[:1], device))


def choose_variant(
    operation: str,
    key: Key,
    table: ConfigurationTable,
    device: torch.device,
    runs: Mapping[Name, Callable[[], object]],
) -> None:
    """Put the name of the fastest run into the table."""
    table.put_variant(operation, key, _fastest(list(runs.items()), device))


def _fastest(runs: Sequence[tuple[Choice, Callable[[], object]]], device: torch.device) -> Choice:
    """What the fastest run is called; the first where there is nothing to compare, or nothing runs but the
    compiler."""
    if len(runs) == 1 or is_compile_only():
        return runs[0][0]
    seconds = medians_in_turn([run for _, run in runs], device, repeats=REPEATS)
    return runs[seconds.index(min(seconds))][0]


def _fits(run: Callable[[], object]) -> bool:
    try:
        run()
    except OutOfResources:
        return False
    return True


def _lm_head(shape: ModelShape, rows: int, table: ConfigurationTable, *, is_sampled: bool) -> None:
    sizes = (rows, shape.d_model), (shape.vocabulary, shape.d_model)
    key = lm_head.key_of(
        *(torch.empty(size, dtype=shape.dtype, device="meta") for size in sizes), is_sampled=is_sampled
    )
    if table.variant("lm_head", key):
        return
    hidden, weight = (shape.random(*size) for size in sizes)
    banned = torch.zeros(1, dtype=torch.int64, device=shape.device)
    ones = torch.ones(rows, device=shape.device)
    keys = torch.arange(rows, device=shape.device)
    sampling = Sampling(ones, keys) if is_sampled else None
    runs: dict[str, Callable[[], object]] = {}
    for variant in lm_head.Variant:
        if variant is lm_head.Variant.FUSED and not can_project(hidden, weight):
            continue
        kernel = lm_head.kernel_of(variant, rows, is_sampled=is_sampled)

        def run(configuration: Configuration, variant: lm_head.Variant = variant) -> object:
            return lm_head.choose_with(variant, hidden, weight, banned, sampling, configuration)

        choose_configuration(kernel, key, table, shape.device, run)
        runs[variant] = partial(run, table.get(kernel, key))
    choose_variant("lm_head", key, table, shape.device, runs)


def _row_kernels(shape: ModelShape, rows: int, table: ConfigurationTable) -> None:
    """Each runs through its own entry, on a table of the one candidate."""
    x, gain = shape.random(rows, shape.d_model), shape.random(1)
    weight = gain.expand(shape.d_model).contiguous()
    gate_up = shape.random(rows, 2 * shape.mlp_width)
    qkv = shape.random(rows, shape.qkv_width)
    cos, sin = (torch.ones(rows, shape.rotary_dim, device=shape.device) for _ in range(2))
    norms = shape.head_norms()
    k_pool, v_pool = (shape.random(16 + rows, shape.kv_heads, shape.head_dim) for _ in range(2))
    slots = torch.arange(16, 16 + rows, device=shape.device)
    heads = (shape.heads, shape.kv_heads)
    dtype = str(shape.dtype).removeprefix("torch.")
    runs: dict[str, tuple[Key, Callable[[ConfigurationTable], object]]] = {
        rms_norm.KERNEL: (
            rms_norm.key_of(x),
            lambda only: rms_norm.rms_norm(only, x, weight, 1e-5),
        ),
        rope.KERNEL: (
            rope.key_of(
                rows, *heads, shape.head_dim, shape.rotary_dim, is_normed=norms is not None, dtype=dtype
            ),
            lambda only: rope.rope_to_pages(only, qkv, cos, sin, *heads, k_pool, v_pool, slots, norms),
        ),
    }
    if shape.mlp_width:
        runs[swiglu.KERNEL] = (
            swiglu.key_of(gate_up),
            lambda only: swiglu.silu_and_multiply(only, gate_up),
        )
    for kernel, (key, run) in runs.items():
        name = ConfigurationTable.name_of(kernel, key)
        choose_configuration(
            kernel,
            key,
            table,
            shape.device,
            lambda c, name=name, run=run: run(ConfigurationTable({name: c})),  # type: ignore[misc]
        )


def _linear_layer(
    shape: ModelShape, kernel: str, rows: int, size: tuple[int, int], table: ConfigurationTable
) -> None:
    """Our kernel against the library's product. Several layers one after the other, as they run: no cache
    holds their weights, and the next may begin early."""
    x, columns = shape.random(rows, size[1]), size[0] // (2 if kernel == few_rows.GATED_LINEAR else 1)
    key = few_rows.key_of(x, columns)
    if table.variant(kernel, key):
        return
    weights, residual = shape.random(BLOCKS, *size), shape.random(rows, columns)
    name = ConfigurationTable.name_of(kernel, key)

    def run(measured_table: ConfigurationTable) -> None:
        operations = TritonOperations(measured_table)
        for weight in weights:
            apply_layer(operations, kernel, x, weight, residual)

    def run_streamed(configuration: Configuration) -> None:
        run(ConfigurationTable({name: configuration}, {name: linear.Variant.STREAMED}))

    choose_configuration(kernel, key, table, shape.device, run_streamed)
    runs = {
        linear.Variant.STREAMED: partial(run_streamed, table.get(kernel, key)),
        linear.Variant.LIBRARY: partial(run, table),  # which knows no variant as yet
    }
    choose_variant(kernel, key, table, shape.device, runs)


def _experts(
    shape: ModelShape, model: ExpertsShape, weights: ExpertWeights, rows: int, table: ConfigurationTable
) -> None:
    """Tokens that choose evenly. The products of each size of tile, then the sizes against each other."""
    gate_up, down = weights.gate_up, weights.down
    x, residual = shape.random(rows, shape.d_model), shape.random(rows, shape.d_model)
    logits = torch.randn(rows, model.routed, device=shape.device)
    bias = torch.zeros(model.routed, device=shape.device)
    taken, at = routing_inputs(shape, model, rows)
    key, name_of = experts.key_of(x, taken, gate_up), ConfigurationTable.name_of
    if table.variant(experts.OPERATION, key):
        return
    choose = partial(choose_configuration, table=table, device=shape.device)
    route_key, order_key = routing.key_of(logits, model.rule), expert_order.key_of(taken, model.count)

    def route(c: Configuration) -> None:
        routing.route(ConfigurationTable({name_of(routing.KERNEL, route_key): c}), logits, bias, model.rule)

    def sort(c: Configuration) -> None:
        only = ConfigurationTable({name_of(expert_order.KERNEL, order_key): c})
        expert_order.order_by_expert(only, taken, model.count, experts.BLOCKS_OF_ROWS[0])

    choose(routing.KERNEL, route_key, run=route)
    choose(expert_order.KERNEL, order_key, run=sort)
    runs: dict[str, Callable[[], object]] = {}
    for block in experts.blocks_to_try(taken, model.count):
        order = expert_order.order_by_expert(table, taken, model.count, block)
        gate, last = f"{experts.GATE}_{block}", f"{experts.DOWN}_{block}"
        choose(gate, key, run=partial(experts.gate_rows, x, gate_up, order))
        hidden = experts.gate_rows(x, gate_up, order, table.get(gate, key))
        choose(last, key, run=partial(experts.down_rows, hidden, down, order))
        parts = experts.down_rows(hidden, down, order, table.get(last, key))
        choose(experts.SUM, key, run=partial(experts.sum_parts, parts, order, at, residual))
        of_block = table.copy()
        of_block.put_variant(experts.OPERATION, key, str(block))
        runs[str(block)] = partial(experts.add_experts_mlp, of_block, x, gate_up, down, taken, at, residual)
    choose_variant(experts.OPERATION, key, table, shape.device, runs)


def _refresh(shape: ModelShape, size: tuple[int, int, int, int], table: ConfigurationTable) -> None:
    inputs = refresh_inputs(shape, *size)
    q, k, v, spans, pack, out = inputs.q, inputs.k, inputs.v, inputs.spans, inputs.pack, inputs.out
    pools = inputs.k_pool, inputs.v_pool
    key = varlen_attention.key_of(q, k, spans.longest)

    def attend(configuration: Configuration) -> None:
        varlen_attention.attend(q, k, v, spans, out, configuration)

    choose_configuration(varlen_attention.KERNEL, key, table, shape.device, attend)
    if q.is_cuda and q.element_size() == 2 and not table.variant(varlen_attention.KERNEL, key):
        runs = {
            varlen_attention.Variant.TRITON: partial(attend, table.get(varlen_attention.KERNEL, key)),
            varlen_attention.Variant.LIBRARY: partial(
                varlen_attention.attend_by_library, q, k, v, spans, out
            ),
        }
        choose_variant(varlen_attention.KERNEL, key, table, shape.device, runs)
    key = kv_select.key_of(q, k, pack)
    choose_configuration(kv_select.SCORE, key, table, shape.device, lambda c: kv_select.score(q, k, pack, c))
    scores = kv_select.score(q, k, pack, table.get(kv_select.SCORE, key))

    def select(configuration: Configuration) -> torch.Tensor:
        return kv_select.select(scores, shape.kv_heads, pack, configuration, shares_indices=False)

    choose_configuration(kv_select.SELECT, key, table, shape.device, select)
    kept = select(table.get(kv_select.SELECT, key))
    choose_configuration(
        kv_select.PACK, key, table, shape.device, lambda c: kv_select.pack(k, v, kept, pack, *pools, c)
    )


def _reuse(shape: ModelShape, size: tuple[int, int, int, int], table: ConfigurationTable) -> None:
    inputs = reuse_inputs(shape, *size)
    spans, keys = inputs.spans, inputs.keys
    pools = inputs.k_pool, inputs.v_pool
    choose_configuration(
        paged_attention.kernel_of(inputs.q, inputs.k_pool, spans),
        paged_attention.key_of(inputs.q, inputs.k_pool, spans, keys),
        table,
        shape.device,
        lambda c: paged_attention.attend(inputs.q, *pools, spans, keys, inputs.out, c),
    )
