"""Triton's twins with a table of configurations bound to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from dllm_kernels.backend import Backend, Operations
from dllm_kernels.gpu import (
    commit,
    experts,
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
from dllm_kernels.gpu.configurations import ConfigurationTable

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class TritonOperations(Operations):
    """On a GPU, or in the interpreter on a CPU; a twin takes the table, then its operation's arguments."""

    backend = Backend.TRITON

    def __init__(self, table: ConfigurationTable | None = None) -> None:
        super().__init__()
        self.table = table = table or ConfigurationTable()
        self.rms_norm = _bind(rms_norm.rms_norm, table)
        self.linear = _bind(linear.linear, table)
        self.gated_linear = _bind(linear.gated_linear, table)
        self.add_linear = _bind(linear.add_linear, table)
        self.silu_and_multiply = _bind(swiglu.silu_and_multiply, table)
        self.router_logits = _bind(routing.router_logits, table)
        self.route = _bind(routing.route, table)
        self.add_experts_mlp = _bind(experts.add_experts_mlp, table)
        self.rope_to_pages = _bind(rope.rope_to_pages, table)
        self.varlen_attention = _bind(varlen_attention.varlen_attention, table)
        self.paged_attention = _bind(paged_attention.paged_attention, table)
        self.select_and_pack = _bind(kv_select.select_and_pack, table)
        self.lm_head_choose = _bind(lm_head.lm_head_choose, table)
        self.commit_rows = commit.commit_rows


def _bind(
    twin: Callable[Concatenate[ConfigurationTable, Arguments], Result], table: ConfigurationTable
) -> Callable[Arguments, Result]:
    return partial(twin, table)
