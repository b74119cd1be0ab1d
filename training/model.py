"""LLaDA for training: bidirectional, pre-RMSNorm, NeoX RoPE in fp32, SwiGLU, tied embeddings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of the embedded model; every head has its own keys and values."""

    d_model: int = 384
    n_heads: int = 6
    n_layers: int = 8
    mlp_hidden_size: int = 736
    vocab_size: int = 512
    max_sequence_length: int = 2048
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads


def config_json(shape: ModelShape, *, mask_token_id: int, eos_token_id: int) -> dict[str, Any]:
    """config.json in LLaDA's own keys."""
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "torch_dtype": "bfloat16",
        **asdict(shape),
        "n_kv_heads": shape.n_heads,
        "embedding_size": shape.vocab_size,
        "rope": True,
        "rope_full_precision": True,
        "block_type": "llama",
        "layer_norm_type": "rms",
        "activation_type": "silu",
        "include_bias": False,
        "include_qkv_bias": False,
        "bias_for_layer_norm": False,
        "weight_tying": True,
        "alibi": False,
        "attention_dropout": 0.0,
        "embedding_dropout": 0.0,
        "residual_dropout": 0.0,
        "layer_norm_with_affine": True,
        "attention_layer_norm": False,
        "mlp_ratio": 4,
        "mask_token_id": mask_token_id,
        "eos_token_id": eos_token_id,
        "pad_token_id": eos_token_id,
        "flash_attention": False,
        "use_cache": False,
        "input_emb_norm": False,
        "multi_query_attention": None,
        "scale_logits": False,
    }


class Scale(nn.Module):
    """The learned scale of an RMSNorm."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))


class Block(nn.Module):
    """The parameters of one layer, under LLaDA's names."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        d, hidden = shape.d_model, shape.mlp_hidden_size
        self.attn_norm, self.ff_norm = Scale(d), Scale(d)
        self.q_proj, self.k_proj = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
        self.v_proj, self.attn_out = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
        self.ff_proj, self.up_proj = nn.Linear(d, hidden, bias=False), nn.Linear(d, hidden, bias=False)
        self.ff_out = nn.Linear(hidden, d, bias=False)


class Transformer(nn.Module):
    """Embedding, layers, last norm: `model.transformer` of the checkpoint."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.wte = nn.Embedding(shape.vocab_size, shape.d_model)
        self.blocks = nn.ModuleList([Block(shape) for _ in range(shape.n_layers)])
        self.ln_f = Scale(shape.d_model)


class MaskedDiffusionModel(nn.Module):
    """Its state dict under `model.` is the checkpoint's.

    `is_compiled` compiles the two halves of a layer, once for any batch and length.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, shape: ModelShape, *, is_compiled: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.transformer = Transformer(shape)
        positions = torch.arange(shape.max_sequence_length, dtype=torch.float64)
        rates = shape.rope_theta ** (
            -torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
        )
        angles = (positions[:, None] * rates).repeat(1, 2).float()  # [positions, head_dim]
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)
        self._project = torch.compile(_project, dynamic=True) if is_compiled else _project
        self._merge = torch.compile(_merge, dynamic=True) if is_compiled else _merge
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with the usual 1/sqrt(2 layers) on what is added to the residual stream."""
        depth = (2 * self.shape.n_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                scale = depth if name.endswith(("attn_out.weight", "ff_out.weight")) else 1.0
                nn.init.normal_(parameter, std=0.02 if "wte" in name else scale * parameter.shape[1] ** -0.5)

    @property
    def layers(self) -> list[Block]:
        """The layers, first to last."""
        return [cast("Block", block) for block in self.transformer.blocks]

    def project(
        self, layer: Block, hidden: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys (both rotated) and values, each [batch, heads, tokens, head_dim].

        A second projection by turned weights replaces rotate_half: element by element, it compiles well.
        """
        weights = (layer.attn_norm.weight, layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight)
        sizes = (self.shape.n_heads, self.shape.rms_norm_eps)
        queries, keys, values = self._project(hidden, *weights, *rotation, *sizes)
        return queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)

    def merge(self, layer: Block, hidden: Tensor, attended: Tensor) -> Tensor:
        """Adds attention's output [batch, heads, tokens, head_dim] and the MLP to the residual stream."""
        mlp = (layer.ff_norm.weight, layer.ff_proj.weight, layer.up_proj.weight, layer.ff_out.weight)
        rows = attended.transpose(1, 2)
        return self._merge(hidden, rows, layer.attn_out.weight, *mlp, self.shape.rms_norm_eps)

    def embed(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """[..., d_model] in `dtype`."""
        return F.embedding(tokens, self.transformer.wte.weight.to(dtype))

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of `positions` [batch or 1, tokens], each [batch or 1, tokens, 1, head_dim]."""
        return self.cosines[positions][:, :, None], self.sines[positions][:, :, None]

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., vocab_size] in fp32."""
        weight = _scaled(self.transformer.ln_f.weight, self.transformer.wte.weight).to(hidden.dtype)
        return F.linear(_rms_norm(hidden, self.shape.rms_norm_eps), weight).float()


def _rms_norm(hidden: Tensor, eps: float) -> Tensor:
    wide = hidden.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(hidden.dtype)


def _scaled(scale: Tensor, *weights: Tensor) -> Tensor:
    """Stacked weights with the norm's scale folded in: its gradient then needs no sum over all tokens."""
    return torch.cat(weights) * scale


def _half_turn(weight: Tensor, n_heads: int) -> Tensor:
    """Rows permuted so that a projection by them is rotate_half of the projection by `weight`."""
    upper, lower = weight.view(n_heads, 2, -1, weight.shape[1]).unbind(1)
    return torch.stack((-lower, upper), 1).view_as(weight)


def _project(
    hidden: Tensor,
    norm: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cosines: Tensor,
    sines: Tensor,
    n_heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    normed = _rms_norm(hidden, eps)

    def heads(weight: Tensor) -> Tensor:
        mixed = F.linear(normed, (weight * norm).to(hidden.dtype))
        return mixed.view(*hidden.shape[:2], n_heads, -1)

    def rotated(weight: Tensor) -> Tensor:
        turned = heads(_half_turn(weight, n_heads))
        return (heads(weight).float() * cosines + turned.float() * sines).to(hidden.dtype)

    return rotated(q), rotated(k), heads(v)


def _merge(
    hidden: Tensor,
    attended: Tensor,
    out: Tensor,
    norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    eps: float,
) -> Tensor:
    kind = hidden.dtype
    hidden = hidden + F.linear(attended.flatten(2), out.to(kind))
    gated, raised = F.linear(_rms_norm(hidden, eps), _scaled(norm, gate, up).to(kind)).chunk(2, dim=-1)
    return hidden + F.linear(F.silu(gated) * raised, down.to(kind))
