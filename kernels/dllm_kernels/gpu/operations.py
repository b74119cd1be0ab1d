"""Triton's twins with a table of configurations bound to them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dllm_kernels.attention import PagedKeys
from dllm_kernels.commit import CommitRows
from dllm_kernels.gpu import (
    commit,
    kv_select,
    linear,
    lm_head,
    paged_attention,
    rms_norm,
    rope,
    swiglu,
    varlen_attention,
)
from dllm_kernels.gpu.configurations import ConfigurationTable
from dllm_kernels.kv_select import PackGroup
from dllm_kernels.layout import RowSpans
from dllm_kernels.lm_head import Choice, Sampling


class TritonOperations:
    """``dllm_kernels.backend.Operations`` on a GPU, or in Triton's interpreter on a CPU."""

    def __init__(self, table: ConfigurationTable | None = None) -> None:
        self.table = table or ConfigurationTable()

    def lm_head_choose(
        self, hidden: Tensor, weight: Tensor, banned: Tensor, sampling: Sampling | None, max_num_logits: int
    ) -> Choice:
        return lm_head.lm_head_choose(hidden, weight, banned, sampling, max_num_logits, table=self.table)

    def commit_rows(
        self,
        confidence: Tensor,
        token: Tensor,
        probability: Tensor,
        rows: CommitRows,
        canvas: Tensor,
        result: Tensor,
    ) -> None:
        commit.commit_rows(confidence, token, probability, rows, canvas, result)

    def varlen_attention(
        self, q: Tensor, k: Tensor, v: Tensor, groups: Sequence[RowSpans], out: Tensor
    ) -> None:
        varlen_attention.varlen_attention(q, k, v, groups, out, table=self.table)

    def paged_attention(
        self,
        q: Tensor,
        k_pool: Tensor,
        v_pool: Tensor,
        groups: Sequence[tuple[RowSpans, PagedKeys]],
        out: Tensor,
    ) -> None:
        paged_attention.paged_attention(q, k_pool, v_pool, groups, out, table=self.table)

    def select_and_pack(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        groups: Sequence[PackGroup],
        k_pool: Tensor,
        v_pool: Tensor,
        *,
        shares_indices: bool = False,
    ) -> None:
        kv_select.select_and_pack(
            q, k, v, groups, k_pool, v_pool, table=self.table, shares_indices=shares_indices
        )

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return rms_norm.rms_norm(x, weight, eps, table=self.table)

    def silu_and_multiply(self, gate_up: Tensor) -> Tensor:
        return swiglu.silu_and_multiply(gate_up, table=self.table)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear.linear(x, weight, bias, table=self.table)

    def gated_linear(self, x: Tensor, gate_up: Tensor) -> Tensor:
        return linear.gated_linear(x, gate_up, table=self.table)

    def add_linear(self, x: Tensor, weight: Tensor, residual: Tensor) -> None:
        linear.add_linear(x, weight, residual, table=self.table)

    def rope_to_pages(
        self,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        heads: int,
        kv_heads: int,
        k_pool: Tensor,
        v_pool: Tensor,
        slots: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return rope.rope_to_pages(qkv, cos, sin, heads, kv_heads, k_pool, v_pool, slots, table=self.table)
