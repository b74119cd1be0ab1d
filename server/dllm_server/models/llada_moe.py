"""LLaDA-MoE: experts in place of LLaDA's gated MLP, with norms of each head. Every position sees every other;
logit i predicts token i."""

from __future__ import annotations

from dllm_kernels.routing import RoutingRule, Score

from dllm_server.models.config import Experts, Fields
from dllm_server.models.family import Family
from dllm_server.models.files import ModelError
from dllm_server.models.names import ConfigKeys
from dllm_server.models.special_tokens import SpecialTexts


def _experts(fields: Fields, n_layers: int) -> Experts | None:
    is_routed = fields.integers("moe_layer_freq", [1] * n_layers)
    if len(is_routed) != n_layers:
        raise ModelError(f"config.json: moe_layer_freq has {len(is_routed)} entries for {n_layers} layers")
    layers = tuple(layer for layer, value in enumerate(is_routed) if value)
    if not layers:
        return None
    # The authors' code reads neither norm_topk_prob nor routed_scaling_factor.
    rule = RoutingRule(score=Score.SOFTMAX, chosen=fields.integer("num_experts_per_tok"), keeps_bias=True)
    return Experts(
        layers,
        fields.integer("num_experts"),
        fields.integer("expert_intermediate_size"),
        has_bias=fields.flag("moe_router_enable_expert_bias", False),
        rule=rule,
    )


LLADA_MOE = Family(
    name="LLaDA-MoE",
    architectures=("LLaDAMoEModelLM",),
    special=SpecialTexts(mask=("<|mask|>",), ends=("<|endoftext|>",)),
    rms_norm_eps=1e-5,
    needs={
        "hidden_act": "silu",
        "attention_bias": False,
        "clip_qkv": None,
        "rope_scaling": None,
        "moe_router_score_function": "softmax",
        "router_num_group": None,
        "router_topk_group": None,
        "shared_expert_intermediate_size": None,
    },
    keys=ConfigKeys(mlp_width="dense_intermediate_size", has_head_norms="qk_layernorm"),
    has_qkv_bias=False,
    experts=_experts,
)
