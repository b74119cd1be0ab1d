"""What config.json says of models that people serve, as far as sizes depend on it, and the parameters that
their cards name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dllm_server.models.config import ModelConfig
from dllm_server.models.registry import find_family
from dllm_server.models.special_tokens import TokenNames


@dataclass(frozen=True)
class PublicModel:
    billions: float
    config: dict[str, Any]
    names: TokenNames

    def parse(self) -> ModelConfig:
        return find_family(self.config, names=self.names)[1]


_LLADA2 = {
    "architectures": ["LLaDA2MoeModelLM"],
    "vocab_size": 157184,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 8,
    "topk_group": 4,
    "routed_scaling_factor": 2.5,
    "partial_rotary_factor": 0.5,
    "rope_theta": 600000,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}
_LLADA2_NAMES = TokenNames({}, mask_token_id=156895, eos_token_id=156892)
_SDAR = {
    "architectures": ["SDARForCausalLM"],
    "vocab_size": 151936,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_hidden_layers": 36,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000,
    "tie_word_embeddings": False,
    "eos_token_id": 151643,
}
_SDAR_NAMES = TokenNames({"<|MASK|>": 151669}, mask_token_id=151669, eos_token_id=151643)

PUBLIC = {
    "LLaDA2.1-mini": PublicModel(
        16.26,
        _LLADA2
        | {
            "hidden_size": 2048,
            "num_hidden_layers": 20,
            "num_attention_heads": 16,
            "intermediate_size": 5120,
            "moe_intermediate_size": 512,
        },
        _LLADA2_NAMES,
    ),
    "LLaDA2.1-flash": PublicModel(
        102.9,
        _LLADA2
        | {
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "intermediate_size": 9216,
            "moe_intermediate_size": 1024,
        },
        _LLADA2_NAMES,
    ),
    "SDAR-8B-Chat": PublicModel(8.19, _SDAR | {"hidden_size": 4096, "intermediate_size": 12288}, _SDAR_NAMES),
    "SDAR-4B-Chat": PublicModel(4.41, _SDAR | {"hidden_size": 2560, "intermediate_size": 9728}, _SDAR_NAMES),
    "SDAR-30B-A3B-Chat": PublicModel(
        30.53,
        _SDAR
        | {
            "architectures": ["SDARMoeForCausalLM"],
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 48,
            "num_key_value_heads": 4,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        },
        _SDAR_NAMES,
    ),
    "Fast_dLLM_v2_7B": PublicModel(
        7.62,
        {
            "architectures": ["Fast_dLLM_QwenForCausalLM"],
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "intermediate_size": 18944,
            "vocab_size": 152064,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": False,
            "bd_size": 32,
            "eos_token_id": 151645,
        },
        TokenNames({"|<MASK>|": 151665}, eos_token_id=151645),
    ),
    "LLaDA-MoE-7B-A1B-Instruct": PublicModel(
        7.36,
        {
            "architectures": ["LLaDAMoEModelLM"],
            "hidden_size": 2048,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "dense_intermediate_size": 8192,
            "expert_intermediate_size": 1024,
            "num_experts": 64,
            "num_experts_per_tok": 8,
            "moe_layer_freq": [1] * 16,
            "qk_layernorm": True,
            "vocab_size": 157184,
            "max_position_embeddings": 8192,
            "rope_theta": 50000,
            "tie_word_embeddings": False,
            "eos_token_id": 156892,
        },
        _LLADA2_NAMES,
    ),
    "iLLaDA-8B-Instruct": PublicModel(
        7.62,
        {
            "architectures": ["ILLaDAForCausalLM"],
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "vocab_size": 155136,
            "max_position_embeddings": 8192,
            "rope_theta": 500000.0,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "eos_token_id": 300,
        },
        TokenNames({"<[MASK]>": 5}),
    ),
}
