"""Configurations of block-causal models at real shapes, and toys of the same kinds for a CPU."""

from __future__ import annotations

from typing import Any

SDAR_8B: dict[str, Any] = {
    "architectures": ["SDARForCausalLM"],
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_hidden_layers": 36,
    "intermediate_size": 12288,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "block_size": 4,
    "mask_token_id": 151669,
    "eos_token_id": 151643,
}
LLADA2_MINI: dict[str, Any] = {
    "architectures": ["LLaDA2MoeModelLM"],
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_hidden_layers": 20,
    "intermediate_size": 5120,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 512,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "num_shared_experts": 1,
    "n_group": 8,
    "topk_group": 4,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "score_function": "sigmoid",
    "moe_router_enable_expert_bias": True,
    "partial_rotary_factor": 0.5,
    "use_qk_norm": True,
    "use_rmsnorm": True,
    "rope_theta": 600000,
    "rms_norm_eps": 1e-6,
    "vocab_size": 157184,
    "max_position_embeddings": 16384,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "block_size": 32,
    "mask_token_id": 156895,
    "eos_token_id": 156892,
    "pad_token_id": 156892,
}
_TOY: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "vocab_size": 512,
    "max_position_embeddings": 512,
    "mask_token_id": 510,
    "eos_token_id": 511,
}
TOY_SDAR = SDAR_8B | _TOY
TOY_LLADA2 = (
    LLADA2_MINI
    | _TOY
    | {
        "moe_intermediate_size": 32,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "n_group": 4,
        "topk_group": 2,
        "block_size": 8,
        "pad_token_id": 511,
    }
)
