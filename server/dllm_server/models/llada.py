"""LLaDA-8B Base and Instruct, LLaDA-1.5: MHA or GQA, tied or untied. Logit i predicts token i."""

from __future__ import annotations

from dllm_server.models.family import Family
from dllm_server.models.names import ConfigKeys, WeightNames
from dllm_server.models.special_tokens import SpecialTexts

LLADA = Family(
    name="LLaDA",
    architectures=("LLaDAModelLM", "LLaDAModel"),
    special=SpecialTexts(mask=("<|mdm_mask|>",), ends=("<|endoftext|>", "<|eot_id|>")),
    rope_theta=10000.0,
    rms_norm_eps=1e-5,
    needs={
        "block_type": "llama",
        "layer_norm_type": "rms",
        "activation_type": "silu",
        "attention_layer_norm": False,
        "include_bias": False,
        "alibi": False,
        "scale_logits": False,
        "input_emb_norm": False,
    },
    keys=ConfigKeys(
        d_model="d_model",
        n_layers="n_layers",
        n_heads="n_heads",
        n_kv_heads="n_kv_heads",
        mlp_width="mlp_hidden_size",
        max_model_len="max_sequence_length",
        is_tied="weight_tying",
        embedding_rows="embedding_size",
        has_qkv_bias="include_qkv_bias",
    ),
    weights=WeightNames(
        embedding="model.transformer.wte.weight",
        final_norm="model.transformer.ln_f.weight",
        lm_head="model.transformer.ff_out.weight",
        layer="model.transformer.blocks.{}.",
        q="q_proj",
        k="k_proj",
        v="v_proj",
        attention_out="attn_out",
        mlp="",
        gate="ff_proj",
        up="up_proj",
        down="ff_out",
        attention_norm="attn_norm",
        mlp_norm="ff_norm",
    ),
)
