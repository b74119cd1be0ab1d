"""Which implementation of the operations runs: plain PyTorch, or Triton's twins."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from dllm_kernels import (
    attention,
    commit,
    experts,
    kv_select,
    linear,
    lm_head,
    rms_norm,
    rope,
    routing,
    swiglu,
)

if TYPE_CHECKING:
    from dllm_kernels.gpu.configurations import ConfigurationTable


class Backend(StrEnum):
    TORCH = "torch"
    TRITON = "triton"


class Operations:
    """The operations of a step, here plain PyTorch's on any device.

    Each attribute is a function whose signature and docstring in ``dllm_kernels`` define the operation. A
    subclass puts its own functions in their place; its types must fit.
    """

    backend: ClassVar[Backend] = Backend.TORCH

    def __init__(self) -> None:
        self.rms_norm = rms_norm.rms_norm
        self.linear = linear.linear
        self.gated_linear = linear.gated_linear
        self.add_linear = linear.add_linear
        self.silu_and_multiply = swiglu.silu_and_multiply
        self.router_logits = routing.router_logits
        self.route = routing.route
        self.add_experts_mlp = experts.add_experts_mlp
        self.rope_to_pages = rope.rope_to_pages
        self.varlen_attention = attention.varlen_attention
        self.paged_attention = attention.paged_attention
        self.select_and_pack = kv_select.select_and_pack
        self.lm_head_choose = lm_head.lm_head_choose
        self.commit_rows = commit.commit_rows


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
        return Operations()
    from dllm_kernels.gpu.operations import TritonOperations

    return TritonOperations(configurations)
