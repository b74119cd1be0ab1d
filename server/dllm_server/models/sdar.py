"""SDAR, dense and with experts, and TraDo, which is SDAR: Qwen3's layers over blocks. Logit i predicts
token i."""

from __future__ import annotations

from dataclasses import replace

from dllm_kernels.routing import RoutingRule, Score

from dllm_server.models.config import BlockCausal, Decoding, Experts, Fields
from dllm_server.models.family import BlockKeys, Family
from dllm_server.models.special_tokens import SpecialTexts
from dllm_server.settings import Strategy

SDAR = Family(
    name="SDAR",
    architectures=("SDARForCausalLM",),
    special=SpecialTexts(mask=("<|MASK|>",), ends=("<|endoftext|>", "<|im_end|>")),
    rope_theta=1e6,
    rms_norm_eps=1e-6,
    needs={
        "hidden_act": "silu",
        "attention_bias": False,
        "rope_scaling": None,
        "use_sliding_window": False,
    },
    has_qkv_bias=False,
    has_head_norms=True,
    blocks=BlockKeys(
        BlockCausal(4, Decoding(Strategy.THRESHOLD, 0.85)),
        block_length="block_size",
        value="confidence_threshold",
        has_sizes=True,
    ),
)


def _experts(fields: Fields, n_layers: int) -> Experts | None:
    step, dense = fields.integer("decoder_sparse_step", 1), fields.integers("mlp_only_layers", [])
    count = fields.integer("num_experts")
    layers = [n for n in range(n_layers) if count > 0 and step > 0 and (n + 1) % step == 0 and n not in dense]
    if not layers:
        return None
    rule = RoutingRule(score=Score.SOFTMAX, chosen=fields.integer("num_experts_per_tok"), renormalises=True)
    return Experts(tuple(layers), count, fields.integer("moe_intermediate_size"), has_bias=False, rule=rule)


SDAR_MOE = replace(
    SDAR,
    name="SDAR-MoE",
    architectures=("SDARMoeForCausalLM",),
    needs={**SDAR.needs, "norm_topk_prob": True},
    experts=_experts,
)
