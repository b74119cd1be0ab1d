"""The bidirectional transformer that LLaDA and Dream share: fused weights and the forward pass over flat
rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from dllm_kernels.backend import Operations, operations
from dllm_kernels.rope import rope_tables
from torch import Tensor

from dllm_server.models.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Target:
    """Where a checkpoint tensor goes: a parameter, a part of its rows, a layer (-1 outside the layers)."""

    parameter: str
    part: str = ""
    layer: int = -1


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
class Layer:
    """Views of one layer's weights."""

    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    attention_out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


class Transformer:
    """Weights on one device and ``forward``. Uninitialised until a loader fills every target."""

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        width, mlp, layers = config.d_model, config.mlp_width, config.n_layers
        shapes = {
            "embedding": (config.embedding_rows, width),
            "final_norm": (width,),
            "attention_norm": (layers, width),
            "mlp_norm": (layers, width),
            "qkv": (layers, query + 2 * key, width),
            "attention_out": (layers, width, query),
            "gate_up": (layers, 2 * mlp, width),
            "down": (layers, width, mlp),
        }
        if config.has_qkv_bias:
            shapes["qkv_bias"] = (layers, query + 2 * key)
        if not config.is_tied:
            shapes["lm_head"] = (config.embedding_rows, width)
        self.weights = {
            name: torch.empty(shape, device=device, dtype=dtype) for name, shape in shapes.items()
        }
        self._parts = {
            "q": (0, query),
            "k": (query, query + key),
            "v": (query + key, query + 2 * key),
            "gate": (0, mlp),
            "up": (mlp, 2 * mlp),
        }
        self._layers = [self._layer(number) for number in range(layers)]
        self.operations: Operations = operations()
        self.cos, self.sin = rope_tables(config.max_model_len, config.head_dim, config.rope_theta, device)

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
        if target.part:
            start, end = self._parts[target.part]
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
            )
            attended = attention.attend(number, q, k, v)
            if number == last and rows is not None:
                attended, residual = attended[rows], residual[rows]
            run.add_linear(attended, layer.attention_out, residual)
            normed = run.rms_norm(residual, layer.mlp_norm, eps)
            run.add_linear(run.gated_linear(normed, layer.gate_up), layer.down, residual)
        return run.rms_norm(residual, self.weights["final_norm"], eps)

    def _layer(self, number: int) -> Layer:
        weights, bias = self.weights, self.weights.get("qkv_bias")
        return Layer(
            attention_norm=weights["attention_norm"][number],
            qkv=weights["qkv"][number],
            qkv_bias=None if bias is None else bias[number],
            attention_out=weights["attention_out"][number],
            mlp_norm=weights["mlp_norm"][number],
            gate_up=weights["gate_up"][number],
            down=weights["down"][number],
        )
