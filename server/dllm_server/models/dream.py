"""Dream-v0 and DiffuCoder (Qwen2.5 shape, q/k/v biases). Right shift: logits at position i predict token i +
1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dllm_server.models.config import Fields, ModelConfig
from dllm_server.models.transformer import Target

ARCHITECTURES = ("DreamModel",)


def parse_config(values: Mapping[str, Any], architecture: str) -> ModelConfig:
    fields = Fields(values)
    fields.require("hidden_act", "silu", "silu")
    fields.require("use_sliding_window", False, False)
    fields.require("rope_scaling", None, None)
    heads = fields.integer("num_attention_heads")
    vocab_size = fields.integer("vocab_size")
    return ModelConfig(
        architecture=architecture,
        d_model=fields.integer("hidden_size"),
        n_layers=fields.integer("num_hidden_layers"),
        n_heads=heads,
        n_kv_heads=fields.integer("num_key_value_heads", heads),
        mlp_width=fields.integer("intermediate_size"),
        vocab_size=vocab_size,
        embedding_rows=vocab_size,
        max_model_len=fields.integer("max_position_embeddings"),
        rope_theta=fields.number("rope_theta", 1e6),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        is_tied=fields.flag("tie_word_embeddings", False),
        has_qkv_bias=True,
        shift=1,
        mask_token_id=fields.integer("mask_token_id", 151666),
        eos_token_id=fields.integer("eos_token_id", 151643),
    )


def weight_targets(config: ModelConfig) -> dict[str, Target]:
    """Checkpoint name -> where it goes."""
    targets = {"model.embed_tokens.weight": Target("embedding"), "model.norm.weight": Target("final_norm")}
    if not config.is_tied:
        targets["lm_head.weight"] = Target("lm_head")
    parts = {
        "self_attn.q_proj.weight": ("qkv", "q"),
        "self_attn.k_proj.weight": ("qkv", "k"),
        "self_attn.v_proj.weight": ("qkv", "v"),
        "self_attn.q_proj.bias": ("qkv_bias", "q"),
        "self_attn.k_proj.bias": ("qkv_bias", "k"),
        "self_attn.v_proj.bias": ("qkv_bias", "v"),
        "self_attn.o_proj.weight": ("attention_out", ""),
        "mlp.gate_proj.weight": ("gate_up", "gate"),
        "mlp.up_proj.weight": ("gate_up", "up"),
        "mlp.down_proj.weight": ("down", ""),
        "input_layernorm.weight": ("attention_norm", ""),
        "post_attention_layernorm.weight": ("mlp_norm", ""),
    }
    for layer in range(config.n_layers):
        for name, (parameter, part) in parts.items():
            targets[f"model.layers.{layer}.{name}"] = Target(parameter, part, layer)
    return targets
