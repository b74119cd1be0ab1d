"""The routed feed-forward layer at LLaDA2-mini's shapes: that it is right, then its time beside its floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from dllm_kernels.routing import RoutingRule, Score
from torch import Tensor

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult, Target

if TYPE_CHECKING:
    from dllm_kernels.gpu.configurations import ConfigurationTable
    from dllm_kernels.gpu.example_inputs import ExpertsShape, ExpertWeights, ModelShape

TOKENS = (32, 128, 512, 2048, 4096)
TOY_TOKENS = (6,)
FEW = 1024
"""Tokens below which the floor is nearly always the read of the weights."""
OF_FEW, OF_MANY = Target(10, 1.15, is_ceiling=True), Target(10, 1.35, is_ceiling=True)
RIGHT = Target(10, 0.0, is_ceiling=True)
GEMM_SIDE = 8192
LLADA2_RULE = RoutingRule(
    score=Score.SIGMOID,
    chosen=8,
    groups=8,
    kept_groups=4,
    renormalises=True,
    epsilon=1e-20,
    scale=2.5,
    shared=1,
)
TOY_RULE = RoutingRule(score=Score.SIGMOID, chosen=2, groups=4, kept_groups=2, renormalises=True, shared=1)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of this device, now. A copy by a kernel beside the driver's own: on some machines that is a fifth
    slower."""

    bytes_per_second: float
    operations_per_second: float


def run(bench: Bench, result: PartResult) -> None:
    """Every size with even and skewed routing: against float64, alone against in a batch, timed beside what
    bounds it and beside the library's grouped products."""
    from dllm_kernels.gpu.configurations import ConfigurationTable, default_path, device_name
    from dllm_kernels.gpu.example_inputs import ExpertsShape, ModelShape, expert_weights
    from dllm_kernels.gpu.warm_up import Sizes, warm_up
    from dllm_server.cpus import usable_cpus

    bench.release()
    if bench.is_cuda:
        experts = ExpertsShape(256, 512, LLADA2_RULE)
        shape = ModelShape(
            16, 4, 128, 2048, 5120, 157184, torch.bfloat16, torch.device("cuda"), experts=experts
        )
        path, name = default_path(), device_name(shape.device)
        table = ConfigurationTable.load(path, name)
        warm_up(shape, Sizes(token_rows=TOKENS), table, cpus=usable_cpus())
        table.save(path, name)
    else:
        experts = ExpertsShape(8, 16, TOY_RULE)
        shape = ModelShape(4, 2, 16, 32, 48, 300, torch.float32, torch.device("cpu"), experts=experts)
        table = ConfigurationTable()
    limits = measure_limits(shape.device)
    result.data["limits"] = asdict(limits)
    result.add("copy bandwidth, read and written", limits.bytes_per_second / 1e9, "GB/s")
    result.add("matrix product", limits.operations_per_second / 1e12, "TFLOP/s")
    weights = expert_weights(shape, experts)
    sizes: list[dict[str, Any]] = []
    result.data["sizes"] = sizes
    for tokens in TOKENS if bench.is_cuda else TOY_TOKENS:
        for routing in ("even", "skewed"):
            measured = measure(shape, experts, weights, table, limits, tokens, routing)
            sizes.append(measured)
            _report(measured, result, is_judged=bench.is_cuda)
            bench.check_time(f"{len(sizes)} sizes")
        seconds = router_seconds(shape, experts, table, tokens)
        result.add(f"{tokens} tokens, router", seconds * 1e6, "us")
    limit = 1e-5 if shape.dtype == torch.float32 else 1e-2
    wrong = sum(not size["error"] <= limit for size in sizes)
    worst = f"at most {max(size['error'] for size in sizes):.1e}"
    judged = RIGHT if bench.is_cuda else None
    result.add("sizes further from float64 than rounding", wrong, "sizes", judged, worst)
    differing = sum(size["batch_dependent"] for size in sizes)
    result.add("tokens whose bits depend on the batch", differing, "tokens", judged)


def measure(
    shape: ModelShape,
    experts: ExpertsShape,
    weights: ExpertWeights,
    table: ConfigurationTable,
    limits: Limits,
    tokens: int,
    routing: str,
) -> dict[str, Any]:
    from dllm_kernels.gpu.example_inputs import routing_inputs
    from dllm_kernels.gpu.operations import TritonOperations
    from dllm_kernels.gpu.timing import medians_in_turn

    from benchmarks.kernel_checks import relative_error

    layer = TritonOperations(table).add_experts_mlp
    x, residual = (shape.random(tokens, shape.d_model) for _ in range(2))
    taken, at = routing_inputs(shape, experts, tokens, is_skewed=routing == "skewed")
    found = residual.clone()
    layer(x, weights.gate_up, weights.down, taken, at, found)
    error = relative_error(found, experts_float64(x, weights, taken, at, residual))
    differing = 0
    for count in (1, 3, 32):
        alone = residual[-count:].clone()
        layer(x[-count:], weights.gate_up, weights.down, taken[-count:], at[-count:], alone)
        differing += int((alone != found[-count:]).any(dim=1).sum())
    touched = int(torch.bincount(taken.flatten()).count_nonzero())
    width = experts.width * shape.d_model
    moved = (touched * 3 * width + 3 * x.numel()) * x.element_size()
    work = 6 * taken.numel() * width
    runs: list[Callable[[], object]] = [partial(layer, x, weights.gate_up, weights.down, taken, at, residual)]
    if x.is_cuda:
        runs.append(partial(library_layer, table, x, weights, taken, at, residual))
    seconds = medians_in_turn(runs, shape.device)
    return {
        "tokens": tokens,
        "routing": routing,
        "experts": touched,
        "bytes": moved,
        "operations": work,
        "seconds": seconds[0],
        "floor_seconds": max(moved / limits.bytes_per_second, work / limits.operations_per_second),
        "library_seconds": seconds[1] if x.is_cuda else None,
        "error": error,
        "batch_dependent": differing,
    }


def _report(measured: dict[str, Any], result: PartResult, *, is_judged: bool) -> None:
    seconds = measured["seconds"]
    bandwidth, rate = measured["bytes"] / seconds / 1e12, measured["operations"] / seconds / 1e12
    note = f"{seconds * 1e6:.0f} us, {measured['experts']} experts, {bandwidth:.2f} TB/s, {rate:.0f} TFLOP/s"
    if measured["library_seconds"]:
        note += f"; the library's products {measured['library_seconds'] * 1e6:.0f} us"
    target = OF_FEW if measured["tokens"] < FEW else OF_MANY
    label = f"{measured['tokens']} tokens, {measured['routing']}"
    ratio = seconds / measured["floor_seconds"]
    result.add(label, ratio, "times the floor", target if is_judged else None, note)


def router_seconds(shape: ModelShape, experts: ExpertsShape, table: ConfigurationTable, tokens: int) -> float:
    from dllm_kernels.gpu.operations import TritonOperations
    from dllm_kernels.gpu.timing import median_seconds

    operations = TritonOperations(table)
    x, router = shape.random(tokens, shape.d_model), shape.random(experts.routed, shape.d_model)
    bias = torch.randn(experts.routed, device=shape.device) * 0.1
    return median_seconds(
        lambda: operations.route(operations.router_logits(x, router), bias, experts.rule), shape.device
    )


def measure_limits(device: torch.device) -> Limits:
    """The faster of two copies, and a large product in the narrow dtype."""
    from dllm_kernels.gpu.timing import median_seconds

    from benchmarks.kernel_timings import copy_bandwidth

    is_cuda = device.type == "cuda"
    source = torch.ones(2**29 if is_cuda else 2**18, dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    seconds = median_seconds(partial(torch.bitwise_not, source, out=target), device)
    by_kernel = 2 * source.numel() * source.element_size() / seconds
    side = GEMM_SIDE if is_cuda else 64
    left, right = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    rate = 2 * side**3 / median_seconds(partial(torch.mm, left, right), device)
    return Limits(max(by_kernel, copy_bandwidth(device)), rate)


def experts_float64(x: Tensor, weights: ExpertWeights, taken: Tensor, at: Tensor, residual: Tensor) -> Tensor:
    result, wide = residual.double(), x.double()
    for expert in range(len(weights.gate_up)):
        tokens, places = (taken == expert).nonzero(as_tuple=True)
        gate, up = (wide[tokens] @ weights.gate_up[expert].double().T).chunk(2, dim=1)
        part = (gate * gate.sigmoid() * up) @ weights.down[expert].double().T
        result.index_add_(0, tokens, at[tokens, places].double().unsqueeze(1) * part)
    return result


def library_layer(
    table: ConfigurationTable, x: Tensor, weights: ExpertWeights, taken: Tensor, at: Tensor, residual: Tensor
) -> None:
    """The same by PyTorch's grouped products, with our kernels for the order, the gate and the sum."""
    from dllm_kernels.gpu import experts, swiglu
    from dllm_kernels.gpu.expert_order import order_by_expert

    product: Callable[..., Tensor] = F.grouped_mm
    order = order_by_expert(table, taken, len(weights.gate_up), experts.BLOCKS_OF_ROWS[-1])
    both = product(x[order.tokens], weights.gate_up.transpose(1, 2), offs=order.ends)
    hidden = swiglu.silu_and_multiply(table, both)
    parts = product(hidden, weights.down.transpose(1, 2), offs=order.ends)
    of_sum = table.get(experts.SUM, experts.key_of(x, taken, weights.gate_up))
    experts.sum_parts(parts, order, at, residual, of_sum)
