"""iLLaDA-8B: Llama's layers and names, GQA, tied. Every position sees every other; logit i predicts token
i."""

from __future__ import annotations

from dllm_server.models.family import Family
from dllm_server.models.special_tokens import SpecialTexts

ILLADA = Family(
    name="iLLaDA",
    architectures=("ILLaDAForCausalLM",),
    special=SpecialTexts(mask=("<[MASK]>",), ends=("<|endoftext|>",)),
    needs={
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "layer_norm_eps": None,  # a number would mean LayerNorm
        "rope_scaling": None,
    },
    has_qkv_bias=False,
    has_head_norms=False,
)
