"""The transformer that all families share, made of the parts that each has: fused weights and the forward
pass over flat rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from dllm_kernels.backend import Operations, operations
from dllm_kernels.rope import HeadNorms, rope_tables
from dllm_kernels.routing import RoutingRule
from torch import Tensor

from dllm_server.models.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Target:
    """Where a checkpoint tensor goes: a parameter, a part of its rows, a layer among those that have the
    parameter (-1 outside the layers), an expert (-1 where there is none)."""

    parameter: str
    part: str = ""
    layer: int = -1
    expert: int = -1


class StepAttention(Protocol):
    """Attention of a step's rows, told apart by it alone.

    ``tail_slots`` int64 are the pool slots of the last rows' K/V.
    """

    @property
    def tail_slots(self) -> Tensor: ...

    def pools(self, layer: int) -> tuple[Tensor, Tensor]:
        """K and V of a layer, ``[slots, kv_heads, dim]``."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``q`` [rows, heads, dim], ``k, v`` [rows, kv_heads, dim], after RoPE -> [rows, heads * dim]."""


@dataclass(frozen=True, slots=True)
class Dense:
    """A feed-forward part that is one gated MLP."""

    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class Routed:
    """A feed-forward part of which each token takes a few experts; the shared ones are the last."""

    router: Tensor
    bias: Tensor | None
    gate_up: Tensor
    down: Tensor
    rule: RoutingRule


@dataclass(frozen=True, slots=True)
class Layer:
    """Views of one layer's weights."""

    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    head_norms: HeadNorms | None
    attention_out: Tensor
    mlp_norm: Tensor
    feed_forward: Dense | Routed


class Transformer:
    """Weights on one device and ``forward``. Uninitialised until a loader fills every target."""

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.weights = {
            name: torch.empty(shape, device=device, dtype=torch.float32 if name == "router_bias" else dtype)
            for name, shape in _shapes(config).items()
        }
        qkv = {"q": (0, query), "k": (query, query + key), "v": (query + key, query + 2 * key)}
        self._parts = {"qkv": qkv, "qkv_bias": qkv, "gate_up": _halves(config.mlp_width)}
        if config.experts is not None:
            self._parts["experts_gate_up"] = _halves(config.experts.width)
        self._layers = [self._layer(number) for number in range(config.n_layers)]
        self.operations: Operations = operations()
        self.cos, self.sin = rope_tables(config.max_model_len, config.rotary_dim, config.rope_theta, device)

    @property
    def weights_bytes(self) -> int:
        tensors = [*self.weights.values(), self.cos, self.sin]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @property
    def lm_head(self) -> Tensor:
        """``[vocabulary, d_model]``, without rows that pad the vocabulary."""
        return self.weights.get("lm_head", self.weights["embedding"])[: self.config.vocab_size]

    def slice_of(self, target: Target) -> Tensor:
        """The memory a checkpoint tensor fills."""
        tensor = self.weights[target.parameter]
        if target.layer >= 0:
            tensor = tensor[target.layer]
        if target.expert >= 0:
            tensor = tensor[target.expert]
        if target.part:
            start, end = self._parts[target.parameter][target.part]
            tensor = tensor[start:end]
        return tensor

    def forward(
        self, token_ids: Tensor, positions: Tensor, attention: StepAttention, rows: Tensor | None = None
    ) -> Tensor:
        """Hidden states after the final norm.

        Args:
            token_ids, positions: int64 ``[tokens]`` of several requests.
            rows: int64 ``[rows]``, the tokens whose hidden states are wanted; all without it. The others
                leave the last layer after its attention.

        Returns:
            ``[rows, d_model]`` in the model's dtype.
        """
        config, run, eps = self.config, self.operations, self.config.rms_norm_eps
        cos, sin = self.cos[positions], self.sin[positions]
        residual = F.embedding(token_ids, self.weights["embedding"])
        last = config.n_layers - 1
        for number, layer in enumerate(self._layers):
            normed = run.rms_norm(residual, layer.attention_norm, eps)
            q, k, v = run.rope_to_pages(
                run.linear(normed, layer.qkv, layer.qkv_bias),
                cos,
                sin,
                config.n_heads,
                config.n_kv_heads,
                *attention.pools(number),
                attention.tail_slots,
                layer.head_norms,
            )
            attended = attention.attend(number, q, k, v)
            if number == last and rows is not None:
                attended, residual = attended[rows], residual[rows]
            run.add_linear(attended, layer.attention_out, residual)
            normed = run.rms_norm(residual, layer.mlp_norm, eps)
            self._add_feed_forward(normed, layer.feed_forward, residual)
        return run.rms_norm(residual, self.weights["final_norm"], eps)

    def _add_feed_forward(self, normed: Tensor, part: Dense | Routed, residual: Tensor) -> None:
        run = self.operations
        match part:
            case Dense(gate_up, down):
                run.add_linear(run.gated_linear(normed, gate_up), down, residual)
            case Routed(router, bias, gate_up, down, rule):
                experts, weights = run.route(run.router_logits(normed, router), bias, rule)
                run.add_experts_mlp(normed, gate_up, down, experts, weights, residual)

    def _layer(self, number: int) -> Layer:
        weights, config = self.weights, self.config
        bias, norms = weights.get("qkv_bias"), None
        if config.has_head_norms:
            norms = HeadNorms(weights["q_norm"][number], weights["k_norm"][number], config.rms_norm_eps)
        return Layer(
            attention_norm=weights["attention_norm"][number],
            qkv=weights["qkv"][number],
            qkv_bias=None if bias is None else bias[number],
            head_norms=norms,
            attention_out=weights["attention_out"][number],
            mlp_norm=weights["mlp_norm"][number],
            feed_forward=self._feed_forward(number),
        )

    def _feed_forward(self, number: int) -> Dense | Routed:
        weights, experts, dense = self.weights, self.config.experts, self.config.dense_layers
        if experts is None or number in dense:
            place = dense.index(number)
            return Dense(weights["gate_up"][place], weights["down"][place])
        place, bias = experts.layers.index(number), weights.get("router_bias")
        return Routed(
            router=weights["router"][place],
            bias=None if bias is None else bias[place],
            gate_up=weights["experts_gate_up"][place],
            down=weights["experts_down"][place],
            rule=experts.rule,
        )


def _halves(width: int) -> dict[str, tuple[int, int]]:
    return {"gate": (0, width), "up": (width, 2 * width)}


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Parameter -> shape; those of layers are stacked."""
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    width, mlp, layers, dense = config.d_model, config.mlp_width, config.n_layers, len(config.dense_layers)
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (config.embedding_rows, width),
        "final_norm": (width,),
        "attention_norm": (layers, width),
        "mlp_norm": (layers, width),
        "qkv": (layers, query + 2 * key, width),
        "attention_out": (layers, width, query),
    }
    if dense:
        shapes |= {"gate_up": (dense, 2 * mlp, width), "down": (dense, width, mlp)}
    if config.has_qkv_bias:
        shapes["qkv_bias"] = (layers, query + 2 * key)
    if config.has_head_norms:
        shapes |= {"q_norm": (layers, config.head_dim), "k_norm": (layers, config.head_dim)}
    if config.experts is not None:
        experts, routed = config.experts, len(config.experts.layers)
        count = experts.count + experts.rule.shared
        shapes["router"] = (routed, experts.count, width)
        shapes["experts_gate_up"] = (routed, count, 2 * experts.width, width)
        shapes["experts_down"] = (routed, count, width, experts.width)
        if experts.has_bias:
            shapes["router_bias"] = (routed, experts.count)
    if not config.is_tied:
        shapes["lm_head"] = (config.embedding_rows, width)
    return shapes
