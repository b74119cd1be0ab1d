"""The bidirectional transformer that LLaDA and Dream share: fused weights and the forward pass over flat
rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from dllm_kernels.rms_norm import rms_norm
from dllm_kernels.rope import apply_rope, rope_tables
from dllm_kernels.swiglu import silu_and_multiply
from torch import Tensor

from dllm_server.models.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Target:
    """Where a checkpoint tensor goes: a parameter, a part of its rows, a layer (-1 outside the layers)."""

    parameter: str
    part: str = ""
    layer: int = -1


class Attention(Protocol):
    """A step's attention: ``q`` [rows, heads, dim], ``k, v`` [rows, kv_heads, dim] -> [rows, heads * dim]."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


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
        self._split = [query, key, key]
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

    def forward(self, token_ids: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Hidden states before the final norm.

        Args:
            token_ids, positions: int64 ``[rows]``; rows of several requests, told apart by ``attention``
            alone.

        Returns:
            ``[rows, d_model]`` in the model's dtype.
        """
        config, weights = self.config, self.weights
        bias = weights.get("qkv_bias")
        cos, sin = self.cos[positions], self.sin[positions]
        hidden = F.embedding(token_ids, weights["embedding"])
        for layer in range(config.n_layers):
            normed = rms_norm(hidden, weights["attention_norm"][layer], config.rms_norm_eps)
            qkv = F.linear(normed, weights["qkv"][layer], None if bias is None else bias[layer])
            q, k, v = torch.split(qkv, self._split, dim=1)
            q = apply_rope(q.view(-1, config.n_heads, config.head_dim), cos, sin)
            k = apply_rope(k.view(-1, config.n_kv_heads, config.head_dim), cos, sin)
            attended = attention(layer, q, k, v.view(-1, config.n_kv_heads, config.head_dim))
            hidden = hidden + F.linear(attended, weights["attention_out"][layer])
            normed = rms_norm(hidden, weights["mlp_norm"][layer], config.rms_norm_eps)
            gate_up = F.linear(normed, weights["gate_up"][layer])
            hidden = hidden + F.linear(silu_and_multiply(gate_up), weights["down"][layer])
        return hidden

    def final_norm(self, hidden: Tensor) -> Tensor:
        return rms_norm(hidden, self.weights["final_norm"], self.config.rms_norm_eps)
