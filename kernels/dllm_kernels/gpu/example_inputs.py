"""Random inputs of a model's shapes, for measuring configurations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dllm_kernels.attention import PagedKeys
from dllm_kernels.kv_select import PackGroup
from dllm_kernels.layout import IntArray, PaddedRows, padded_rows
from dllm_kernels.rope import HeadNorms
from dllm_kernels.routing import RoutingRule


@dataclass(frozen=True, slots=True)
class ExpertsShape:
    """``routed`` experts of ``width`` beside those that the rule shares."""

    routed: int
    width: int
    rule: RoutingRule

    @property
    def count(self) -> int:
        """Of all that have weights."""
        return self.routed + self.rule.shared


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the kernels need to know of a model. ``mlp_width`` 0: no layer has one MLP of all tokens.
    ``experts`` are those of its other layers. All of a head turns unless ``turned`` says how much of it."""

    heads: int
    kv_heads: int
    head_dim: int
    d_model: int
    mlp_width: int
    vocabulary: int
    dtype: torch.dtype
    device: torch.device
    turned: int | None = None
    has_head_norms: bool = False
    experts: ExpertsShape | None = None

    @property
    def rotary_dim(self) -> int:
        return self.head_dim if self.turned is None else self.turned

    def head_norms(self) -> HeadNorms | None:
        """Weights of 1, where the model has any."""
        if not self.has_head_norms:
            return None
        weight = torch.ones(self.head_dim, dtype=self.dtype, device=self.device)
        return HeadNorms(weight, weight, 1e-6)

    @property
    def qkv_width(self) -> int:
        """Of a token's queries, keys and values together."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    def random(self, *shape: int) -> Tensor:
        return torch.randn(shape, dtype=self.dtype, device=self.device)


@dataclass(frozen=True, slots=True)
class RefreshInputs:
    """Rows of some refresh requests and where their K/V go."""

    q: Tensor
    k: Tensor
    v: Tensor
    spans: PaddedRows
    pack: PackGroup
    k_pool: Tensor
    v_pool: Tensor
    out: Tensor


@dataclass(frozen=True, slots=True)
class ReuseInputs:
    """Rows of some reuse requests and the keys they attend to; each request has its own slots."""

    q: Tensor
    k_pool: Tensor
    v_pool: Tensor
    spans: PaddedRows
    keys: PagedKeys
    out: Tensor


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """Of one layer."""

    gate_up: Tensor
    down: Tensor


def expert_weights(shape: ModelShape, experts: ExpertsShape) -> ExpertWeights:
    """Of a size that keeps products near 1."""
    gate_up = shape.random(experts.count, 2 * experts.width, shape.d_model)
    down = shape.random(experts.count, shape.d_model, experts.width)
    return ExpertWeights(gate_up.mul_(shape.d_model**-0.5), down.mul_(experts.width**-0.5))


def routing_inputs(
    shape: ModelShape, experts: ExpertsShape, tokens: int, *, is_skewed: bool = False
) -> tuple[Tensor, Tensor]:
    """Experts and weights of ``tokens``: each draws its own among all that are routed, the same chance for
    each or, skewed, the r-th most popular 1/r of the first's."""
    chances = torch.ones(experts.routed, device=shape.device)
    if is_skewed:
        chances /= 1 + torch.randperm(experts.routed, device=shape.device)
    chosen = torch.multinomial(chances.expand(tokens, -1), experts.rule.chosen)
    shared = torch.arange(experts.routed, experts.count, device=shape.device).expand(tokens, -1)
    taken = torch.cat((chosen, shared), dim=1).to(torch.int32)
    return taken, torch.rand(taken.shape, device=shape.device)


def refresh_inputs(shape: ModelShape, requests: int, length: int, block: int, kept: int) -> RefreshInputs:
    """``requests`` of ``length`` tokens whose last ``block`` tokens are the block; ``kept`` others stay."""
    rows, (starts, lengths) = requests * length, _spans(requests, length)
    width = shape.heads + 2 * shape.kv_heads
    qkv = shape.random(rows, width, shape.head_dim)
    spans = padded_rows(starts, lengths, shape.device)
    is_block = torch.arange(length, device=shape.device) >= length - block
    slots = torch.arange(16, 16 + requests * kept, device=shape.device).view(requests, kept)
    pack = PackGroup(
        rows=spans,
        is_context=(~is_block).repeat(requests, 1),
        query_weight=(is_block.float() / block).repeat(requests, 1),
        slots=slots,
        keeps_all=False,
    )
    k_pool, v_pool = (shape.random(16 + requests * kept, shape.kv_heads, shape.head_dim) for _ in range(2))
    q, k, v = torch.split(qkv, [shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
    return RefreshInputs(q, k, v, spans, pack, k_pool, v_pool, torch.empty_like(q))


def reuse_inputs(
    shape: ModelShape, requests: int, block: int, keys: int, causal_block: int = 0
) -> ReuseInputs:
    """``requests`` of ``block`` queries over ``keys`` slots each, in pages of 16 scattered over the pool."""
    rows, (starts, lengths) = requests * block, _spans(requests, block)
    pages = -(-keys // 16)
    order = torch.randperm(requests * pages, device=shape.device).view(requests, pages, 1)
    slots = (order * 16 + torch.arange(16, device=shape.device)).flatten(1)[:, :keys].contiguous()
    counts = torch.full((requests,), keys, dtype=torch.int32, device=shape.device)
    pool = requests * pages * 16, shape.kv_heads, shape.head_dim
    k_pool, v_pool = shape.random(*pool), shape.random(*pool)
    q = shape.random(rows, shape.heads, shape.head_dim)
    spans = padded_rows(starts, lengths, shape.device)
    paged = PagedKeys(slots, counts, is_padded=False, causal_block=causal_block)
    return ReuseInputs(q, k_pool, v_pool, spans, paged, torch.empty_like(q))


def _spans(requests: int, length: int) -> tuple[IntArray, IntArray]:
    lengths = np.full(requests, length, dtype=np.int64)
    return np.cumsum(lengths) - lengths, lengths
