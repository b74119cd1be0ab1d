"""LLaDA (8B Base and Instruct, 1.5, iLLaDA): MHA or GQA, tied or untied. Logit i predicts token i."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dllm_server.models.config import Fields, ModelConfig
from dllm_server.models.transformer import Target

ARCHITECTURES = ("LLaDAModelLM", "LLaDAModel")


def parse_config(values: Mapping[str, Any], architecture: str) -> ModelConfig:
    fields = Fields(values)
    fields.require("block_type", "llama", "llama")
    fields.require("layer_norm_type", "rms", "rms")
    fields.require("activation_type", "silu", "silu")
    fields.require("attention_layer_norm", False, False)
    fields.require("include_bias", False, False)
    fields.require("alibi", False, False)
    fields.require("scale_logits", False, False)
    fields.require("input_emb_norm", False, False)
    heads = fields.integer("n_heads")
    vocab_size = fields.integer("vocab_size")
    return ModelConfig(
        architecture=architecture,
        d_model=fields.integer("d_model"),
        n_layers=fields.integer("n_layers"),
        n_heads=heads,
        n_kv_heads=fields.integer("n_kv_heads", heads),
        mlp_width=fields.integer("mlp_hidden_size"),
        vocab_size=vocab_size,
        embedding_rows=fields.integer("embedding_size", vocab_size),
        max_model_len=fields.integer("max_sequence_length"),
        rope_theta=fields.number("rope_theta", 10000.0),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-5),
        is_tied=fields.flag("weight_tying", False),
        has_qkv_bias=fields.flag("include_qkv_bias", False),
        shift=0,
        mask_token_id=fields.integer("mask_token_id", 126336),
        eos_token_id=fields.integer("eos_token_id", 126081),
    )


def weight_targets(config: ModelConfig) -> dict[str, Target]:
    """Checkpoint name -> where it goes."""
    root = "model.transformer"
    targets = {f"{root}.wte.weight": Target("embedding"), f"{root}.ln_f.weight": Target("final_norm")}
    if not config.is_tied:
        targets[f"{root}.ff_out.weight"] = Target("lm_head")
    parts = {
        "q_proj": ("qkv", "q"),
        "k_proj": ("qkv", "k"),
        "v_proj": ("qkv", "v"),
        "attn_out": ("attention_out", ""),
        "ff_proj": ("gate_up", "gate"),
        "up_proj": ("gate_up", "up"),
        "ff_out": ("down", ""),
        "attn_norm": ("attention_norm", ""),
        "ff_norm": ("mlp_norm", ""),
    }
    for layer in range(config.n_layers):
        for name, (parameter, part) in parts.items():
            targets[f"{root}.blocks.{layer}.{name}.weight"] = Target(parameter, part, layer)
        if config.has_qkv_bias:
            for part in "qkv":
                targets[f"{root}.blocks.{layer}.{part}_proj.bias"] = Target("qkv_bias", part, layer)
    return targets
