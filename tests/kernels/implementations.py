"""The implementations that every kernel test runs over: PyTorch, and Triton compiled where a CUDA device is,
interpreted elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from dllm_kernels.backend import Backend, Operations, operations

from benchmarks.interpreter import interpret_kernels

if TYPE_CHECKING:
    from dllm_kernels.gpu.configurations import ConfigurationTable

HAS_GPU = torch.cuda.is_available()
WHY_NO_TRITON = None if HAS_GPU else interpret_kernels()


@dataclass(frozen=True)
class Implementation:
    """``has_small_tiles``: tiny tiles and many splits, so that small shapes cross every boundary."""

    backend: Backend
    device: torch.device
    has_small_tiles: bool = False
    lm_head: str = ""
    linear: str = ""
    experts: str = ""

    @property
    def narrow(self) -> torch.dtype:
        """The 16-bit dtype to test; the interpreter computes in numpy, which has no bfloat16."""
        is_interpreted = self.backend is Backend.TRITON and self.device.type == "cpu"
        return torch.float16 if is_interpreted else torch.bfloat16

    def dtype(self, width: str) -> torch.dtype:
        return self.narrow if width == "narrow" else torch.float32

    @property
    def run(self) -> Operations:
        if self.backend is Backend.TORCH:
            return operations()
        return operations(self.backend, table_of(self))


def table_of(implementation: Implementation) -> ConfigurationTable:
    from dllm_kernels.gpu.configurations import Configuration, ConfigurationTable, Key

    swaps = int(implementation.linear == "streamed-swapped")
    small_stream = {"block_columns": 16, "block_depth": 16, "swaps": swaps, "ahead_bytes": 0}
    swaps_experts = int("swapped" in implementation.experts)
    small_group = {"block_columns": 16, "block_depth": 16, "swaps": swaps_experts}
    small = {
        "lm_head": ({"block_rows": 16, "block_columns": 16, "block_depth": 16, "is_flattened": 0}, 2),
        "logits_chunk": ({"block_rows": 16, "block_columns": 16}, 0),
        "varlen_attention": ({"block_queries": 16, "block_keys": 16}, 0),
        "paged_attention": ({"block_queries": 16, "block_keys": 16}, 2),
        "paged_attention_wide": ({"block_queries": 16, "block_keys": 16}, 0),
        "kv_score": ({"block_keys": 16, "block_window": 2}, 0),
        "kv_select": ({}, 0),
        "kv_pack": ({"block_keys": 4}, 0),
        **dict.fromkeys(("linear", "gated_linear", "add_linear"), (small_stream, 0)),
        "route": ({"block_tokens": 2}, 0),
        "expert_order": ({"block_slots": 16}, 0),
        **{
            f"experts_{product}_{rows}": (small_group, 0) for product in ("gate", "down") for rows in (16, 32)
        },
        "experts_sum": ({"block_columns": 16}, 0),
        "rms_norm": ({}, 0),
        "rope": ({"block_heads": 2}, 0),
        "silu_and_multiply": ({"block_columns": 16}, 0),
    }

    class FixedTable(ConfigurationTable):
        def get(self, kernel: str, key: Key) -> Configuration:
            if not implementation.has_small_tiles:
                return super().get(kernel, key)
            blocks, splits = small[kernel.partition("_few")[0].partition("_many")[0]]
            return Configuration(blocks, splits=splits)

        def variant(self, operation: str, key: Key) -> str | None:
            if operation in ("linear", "gated_linear", "add_linear"):
                return implementation.linear.removesuffix("-swapped") or None
            if operation == "experts_mlp":
                return implementation.experts.removesuffix("-swapped") or None
            return implementation.lm_head or None if operation == "lm_head" else None

    return FixedTable()


CPU = torch.device("cpu")


def _parameters(field: str = "", variants: tuple[str, ...] = ("",)) -> list[object]:
    found = [pytest.param(Implementation(Backend.TORCH, CPU), id="torch-cpu")]
    device = torch.device("cuda") if HAS_GPU else CPU
    way = "compiled" if HAS_GPU else "interpreted"
    marks = [pytest.mark.skipif(WHY_NO_TRITON is not None, reason=str(WHY_NO_TRITON))]
    if HAS_GPU:
        marks = [pytest.mark.gpu]
        found.append(pytest.param(Implementation(Backend.TORCH, device), id="torch-cuda", marks=marks))
    for variant in variants:
        for is_small in (True, False) if HAS_GPU else (True,):
            one = Implementation(Backend.TRITON, device, is_small, **({field: variant} if field else {}))
            name = "-".join(filter(None, ("triton", way, variant, "small-tiles" if is_small else "")))
            found.append(pytest.param(one, id=name, marks=marks))
    return found


each_implementation = pytest.mark.parametrize("implementation", _parameters())
each_lm_head = pytest.mark.parametrize("implementation", _parameters("lm_head", ("fused", "chunked")))
each_linear = pytest.mark.parametrize(
    "implementation", _parameters("linear", ("streamed", "streamed-swapped", "library"))
)
each_experts = pytest.mark.parametrize("implementation", _parameters("experts", ("16", "32-swapped")))
each_width = pytest.mark.parametrize("width", ["float32", "narrow"])
needs_triton = pytest.mark.skipif(WHY_NO_TRITON is not None, reason=str(WHY_NO_TRITON))
