"""``python -m benchmarks.kernel_resources``: compile every candidate for a Hopper GPU, without one, and print
registers, spills, shared memory and matrix instructions. A candidate that spills or does not compile shows
here before any time on a GPU is spent.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from dllm_kernels.gpu import (
    expert_order,
    experts,
    few_rows,
    kv_select,
    logits_chunk,
    paged_attention,
    projection,
    varlen_attention,
)
from dllm_kernels.gpu.configurations import Configuration, ConfigurationTable, Key, candidates
from dllm_kernels.gpu.example_inputs import ModelShape, ReuseInputs, refresh_inputs, reuse_inputs
from dllm_kernels.gpu.operations import TritonOperations
from dllm_kernels.lm_head import Sampling
from dllm_kernels.routing import RoutingRule, Score

from benchmarks.offline_compiler import Resources, offline_compilation, resources_of

CPU = torch.device("cpu")
SHAPES = {
    "LLaDA-8B": ModelShape(32, 32, 128, 4096, 12288, 512, torch.bfloat16, CPU),
    "float32": ModelShape(8, 2, 64, 256, 512, 512, torch.float32, CPU),
    "Dream-7B": ModelShape(28, 4, 128, 3584, 18944, 512, torch.bfloat16, CPU),
    "SDAR-8B": ModelShape(32, 8, 128, 4096, 12288, 512, torch.bfloat16, CPU, has_head_norms=True),
    "LLaDA2-mini": ModelShape(
        16, 4, 128, 2048, 5120, 512, torch.bfloat16, CPU, turned=64, has_head_norms=True
    ),
}
Launch = Callable[[Configuration], object]


class _Only(ConfigurationTable):
    """One configuration for whatever is asked."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__()
        self._configuration = configuration

    def get(self, kernel: str, key: Key) -> Configuration:
        return self._configuration


def launches(shape: ModelShape) -> dict[str, Launch]:
    """How to launch each kernel at a model's shapes."""
    refresh, reuse = refresh_inputs(shape, 1, 48, 32, 8), reuse_inputs(shape, 2, 32, 48)
    pools, pack = (refresh.k_pool, refresh.v_pool), refresh.pack
    scores = torch.empty(1, shape.kv_heads, 48)
    positions = torch.empty(1, shape.kv_heads, 8, dtype=torch.int32)
    hidden, weight = shape.random(8, shape.d_model), shape.random(shape.vocabulary, shape.d_model)
    square, bias = shape.random(shape.d_model, shape.d_model), shape.random(shape.vocabulary)
    banned = torch.zeros(1, dtype=torch.int64)
    sampling = Sampling(torch.ones(8), torch.arange(8))
    qkv = shape.random(8, shape.qkv_width)
    angles, slots = torch.ones(8, shape.rotary_dim), torch.arange(4)
    heads = shape.heads, shape.kv_heads

    def project(choice: Sampling | None) -> Launch:
        return lambda c: projection.project_and_choose(hidden, weight, banned, choice, c)

    def attend_pages(of: ReuseInputs, c: Configuration) -> None:
        for splits in (1, 4):
            split = Configuration(c.blocks, c.num_warps, c.num_stages, splits)
            paged_attention.attend(of.q, of.k_pool, of.v_pool, of.spans, of.keys, of.out, split)

    gate_up = shape.random(2 * shape.mlp_width, shape.d_model)
    rule = RoutingRule(score=Score.SIGMOID, chosen=2, groups=4, kept_groups=2, renormalises=True, shared=1)
    taken, at = torch.zeros(8, 3, dtype=torch.int32), torch.ones(8, 3)
    layer = shape.random(5, 1024, shape.d_model), shape.random(5, shape.d_model, 512)
    rows = shape.random(24, 512), shape.random(24, shape.d_model)

    def sort(block: int) -> expert_order.ExpertOrder:
        return expert_order.ExpertOrder(
            tokens=taken.flatten(),
            rows=taken.flatten(),
            ends=taken.flatten(),
            tiles=torch.zeros(1, 4, dtype=torch.int32),
            filled_tiles=taken.flatten(),
            block_rows=block,
        )

    def of_gate(block: int) -> Launch:
        return lambda c: experts.gate_rows(hidden, layer[0], sort(block), c)

    def of_down(block: int) -> Launch:
        return lambda c: experts.down_rows(rows[0], layer[1], sort(block), c)

    return {
        **{f"{experts.GATE}_{block}": of_gate(block) for block in experts.BLOCKS_OF_ROWS},
        **{f"{experts.DOWN}_{block}": of_down(block) for block in experts.BLOCKS_OF_ROWS},
        experts.SUM: lambda c: experts.sum_parts(rows[1], sort(16), at, hidden.clone(), c),
        expert_order.KERNEL: lambda c: expert_order.order_by_expert(_Only(c), taken, 5, 16),
        "route": lambda c: TritonOperations(_Only(c)).route(torch.zeros(8, 8), torch.zeros(8), rule),
        "lm_head_many": project(None),
        "lm_head_few": project(None),
        "lm_head_many_sampled": project(sampling),
        "lm_head_few_sampled": project(sampling),
        "logits_chunk": lambda c: [
            logits_chunk.chunk_and_choose(hidden, weight, banned, choice, c) for choice in (None, sampling)
        ],
        "varlen_attention": lambda c: varlen_attention.attend(
            refresh.q, refresh.k, refresh.v, refresh.spans, refresh.out, c
        ),
        paged_attention.KERNEL: partial(attend_pages, reuse),
        paged_attention.WIDE: partial(attend_pages, reuse_inputs(shape, 1, 192, 256, 4)),
        "kv_score": lambda c: kv_select.score(refresh.q, refresh.k, pack, c),
        "kv_select": lambda c: kv_select.select(scores, shape.kv_heads, pack, c, shares_indices=False),
        "kv_pack": lambda c: kv_select.pack(refresh.k, refresh.v, positions, pack, *pools, c),
        "linear": lambda c: few_rows.linear(hidden, weight, bias, c),
        "gated_linear": lambda c: few_rows.gated_linear(hidden, gate_up, c),
        "add_linear": lambda c: few_rows.add_linear(hidden, square, hidden.clone(), c),
        "rms_norm": lambda c: TritonOperations(_Only(c)).rms_norm(hidden, hidden[0], 1e-5),
        "rope": lambda c: TritonOperations(_Only(c)).rope_to_pages(
            qkv, angles, angles, *heads, *pools, slots, shape.head_norms()
        ),
        "silu_and_multiply": lambda c: TritonOperations(_Only(c)).silu_and_multiply(
            shape.random(8, 2 * shape.mlp_width)
        ),
    }


def compile_all(
    shape: ModelShape, *, first_only: bool = False
) -> Iterator[tuple[str, Configuration, Resources]]:
    """Each kernel of each candidate, or of the first ones; raises what the compiler raises."""
    for name, launch in launches(shape).items():
        tried = candidates(name, (str(shape.dtype).removeprefix("torch."),))
        for candidate in tried[:1] if first_only else tried:
            with offline_compilation() as compiled:
                launch(candidate)
            for kernel in compiled:
                yield name, candidate, resources_of(kernel)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernel_resources")
    parser.add_argument("--first", action="store_true", help="only the first candidate of each kernel")
    parser.add_argument("--model", choices=SHAPES, action="append", help="only at this model's shapes")
    options = parser.parse_args()
    spilled = 0
    for model in options.model or SHAPES:
        for name, candidate, found in compile_all(SHAPES[model], first_only=options.first):
            spilled += found.local_bytes > 0
            sizes = " ".join(f"{key}={value}" for key, value in candidate.blocks.items())
            tile = f"{sizes} warps={found.warps} stages={candidate.num_stages}"
            use = f"{found.registers:4} registers {found.local_bytes:5} spilled {found.shared_bytes:7} shared"
            print(f"{model} {name:21}{found.kernel:12}{use} {found.matrix_unit:6} {tile}", flush=True)
    print(f"{spilled} kernels spill")


if __name__ == "__main__":
    main()
