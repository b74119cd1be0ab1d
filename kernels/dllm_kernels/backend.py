"""Which implementation of the operations runs: plain PyTorch, or Triton's twins."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from dllm_kernels import attention, commit, kv_select, linear, lm_head, rms_norm, rope, swiglu
from dllm_kernels.attention import PagedKeys
from dllm_kernels.commit import CommitRows
from dllm_kernels.kv_select import PackGroup
from dllm_kernels.layout import PaddedRows
from dllm_kernels.lm_head import Choice, Sampling

if TYPE_CHECKING:
    from dllm_kernels.gpu.configurations import ConfigurationTable


class Backend(StrEnum):
    TORCH = "torch"
    TRITON = "triton"


class Operations(Protocol):
    """The operations of a step; the docstrings of ``dllm_kernels``' functions of these names say what they
    do."""

    def lm_head_choose(
        self, hidden: Tensor, weight: Tensor, banned: Tensor, sampling: Sampling | None, max_num_logits: int
    ) -> Choice: ...

    def commit_rows(
        self,
        confidence: Tensor,
        token: Tensor,
        probability: Tensor,
        rows: CommitRows,
        canvas: Tensor,
        result: Tensor,
    ) -> None: ...

    def varlen_attention(
        self, q: Tensor, k: Tensor, v: Tensor, groups: Sequence[PaddedRows], out: Tensor
    ) -> None: ...

    def paged_attention(
        self,
        q: Tensor,
        k_pool: Tensor,
        v_pool: Tensor,
        groups: Sequence[tuple[PaddedRows, PagedKeys]],
        out: Tensor,
    ) -> None: ...

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
    ) -> None: ...

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor: ...

    def silu_and_multiply(self, gate_up: Tensor) -> Tensor: ...

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor: ...

    def gated_linear(self, x: Tensor, gate_up: Tensor) -> Tensor: ...

    def add_linear(self, x: Tensor, weight: Tensor, residual: Tensor) -> None: ...

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
    ) -> tuple[Tensor, Tensor, Tensor]: ...


class TorchOperations:
    """Plain PyTorch, on any device."""

    lm_head_choose = staticmethod(lm_head.lm_head_choose)
    commit_rows = staticmethod(commit.commit_rows)
    varlen_attention = staticmethod(attention.varlen_attention)
    paged_attention = staticmethod(attention.paged_attention)
    select_and_pack = staticmethod(kv_select.select_and_pack)
    rms_norm = staticmethod(rms_norm.rms_norm)
    silu_and_multiply = staticmethod(swiglu.silu_and_multiply)
    gated_linear = staticmethod(linear.gated_linear)
    add_linear = staticmethod(linear.add_linear)
    linear = staticmethod(linear.linear)  # last: it hides the module
    rope_to_pages = staticmethod(rope.rope_to_pages)


def operations(
    backend: Backend = Backend.TORCH, configurations: ConfigurationTable | None = None
) -> Operations:
    """The operations of ``backend``.

    Args:
        configurations: tile shapes for Triton, as ``dllm_kernels.gpu.warm_up`` measured them; without them
            each kernel takes its first candidate.

    Raises:
        ImportError: the Triton backend without the ``triton`` package.
    """
    if backend is Backend.TORCH:
        return TorchOperations()
    from dllm_kernels.gpu.operations import TritonOperations

    return TritonOperations(configurations)
