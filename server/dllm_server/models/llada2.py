"""LLaDA2.0 and 2.1, mini and flash: a sigmoid router with groups, a shared expert, heads that turn in part.
Logit i predicts token i."""

from __future__ import annotations

from dllm_kernels.routing import RoutingRule, Score

from dllm_server.models.config import BlockCausal, Decoding, Experts, Fields
from dllm_server.models.family import BlockKeys, Family
from dllm_server.models.files import ModelError
from dllm_server.models.names import WeightNames
from dllm_server.models.special_tokens import SpecialTexts
from dllm_server.settings import Strategy


def _experts(fields: Fields, n_layers: int) -> Experts | None:
    layers = tuple(range(fields.integer("first_k_dense_replace", 0), n_layers))
    shared = fields.integer("num_shared_experts", 0)
    if shared not in (0, 1):
        raise ModelError(f"config.json: num_shared_experts {shared} is not supported, only 0 and 1")
    if not layers:
        return None
    # The authors' code divides by the sum whatever norm_topk_prob says, but not for a single expert.
    chosen = fields.integer("num_experts_per_tok")
    rule = RoutingRule(
        score=Score.SIGMOID,
        chosen=chosen,
        groups=fields.integer("n_group", 1),
        kept_groups=fields.integer("topk_group", 1),
        renormalises=chosen > 1,
        epsilon=1e-20,
        scale=fields.number("routed_scaling_factor", 1.0),
        shared=shared,
    )
    width = fields.integer("moe_intermediate_size")
    return Experts(layers, fields.integer("num_experts"), width, has_bias=True, rule=rule)


LLADA2 = Family(
    name="LLaDA2",
    architectures=("LLaDA2MoeModelLM",),
    special=SpecialTexts(mask=("<|mask|>",), ends=("<|endoftext|>",)),
    rope_theta=600000.0,
    rms_norm_eps=1e-6,
    needs={
        "hidden_act": "silu",
        "use_bias": False,
        "use_qkv_bias": False,
        "use_qk_norm": True,
        "use_rmsnorm": True,
        "use_sliding_window": False,
        "rope_scaling": None,
        "norm_head": False,
        "norm_softmax": False,
        "score_function": "sigmoid",
        "expert_capacity": None,  # LLaDA2.2 routes whole blocks, and inserts and deletes tokens
        "delete_token_id": None,
        "split_token_id": None,
    },
    weights=WeightNames(
        embedding="model.word_embeddings.weight",
        qkv="attention.query_key_value",
        q_norm="attention.query_layernorm",
        k_norm="attention.key_layernorm",
        attention_out="attention.dense",
    ),
    has_qkv_bias=False,
    has_head_norms=True,
    experts=_experts,
    blocks=BlockKeys(
        BlockCausal(32, Decoding(Strategy.THRESHOLD, 0.95, max_post_edit_steps=16)),
        block_length="block_size",
        value="threshold",
        edit_threshold="editing_threshold",
        max_post_edit_steps="max_post_steps",
    ),
)
