"""A family of models as data: what config.json and the weights are called, and what is computed from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dllm_server.models.config import Fields, ModelConfig
from dllm_server.models.files import ModelError
from dllm_server.models.special_tokens import Declared, SpecialTexts, TokenNames
from dllm_server.models.transformer import Target

_HARMLESS = re.compile(r"(^|\.)(inv_freq|position_ids)$")  # computed here, whatever the file says


@dataclass(frozen=True, slots=True)
class ConfigKeys:
    """Names in config.json; the defaults are those of Llama and most who came after. Empty: no such field."""

    d_model: str = "hidden_size"
    n_layers: str = "num_hidden_layers"
    n_heads: str = "num_attention_heads"
    n_kv_heads: str = "num_key_value_heads"
    mlp_width: str = "intermediate_size"
    max_model_len: str = "max_position_embeddings"
    is_tied: str = "tie_word_embeddings"
    embedding_rows: str = ""
    has_qkv_bias: str = ""


@dataclass(frozen=True, slots=True)
class WeightNames:
    """Names in the safetensors; the defaults are Llama's. Those of a layer follow ``layer``, whose braces
    hold its number, and end in ``.weight`` or, for ``q``, ``k`` and ``v``, also in ``.bias``."""

    embedding: str = "model.embed_tokens.weight"
    final_norm: str = "model.norm.weight"
    lm_head: str = "lm_head.weight"
    layer: str = "model.layers.{}."
    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    attention_out: str = "self_attn.o_proj"
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"

    def in_layer(self, *, has_qkv_bias: bool) -> dict[str, tuple[str, str]]:
        """Name after ``layer`` -> parameter and part."""
        parts = {
            self.q: ("qkv", "q"),
            self.k: ("qkv", "k"),
            self.v: ("qkv", "v"),
            self.attention_out: ("attention_out", ""),
            self.gate: ("gate_up", "gate"),
            self.up: ("gate_up", "up"),
            self.down: ("down", ""),
            self.attention_norm: ("attention_norm", ""),
            self.mlp_norm: ("mlp_norm", ""),
        }
        names = {f"{name}.weight": place for name, place in parts.items()}
        if has_qkv_bias:
            biases = {self.q: "q", self.k: "k", self.v: "v"}
            names |= {f"{name}.bias": ("qkv_bias", part) for name, part in biases.items()}
        return names


@dataclass(frozen=True, slots=True)
class Family:
    """All that tells one family from another.

    ``needs`` are fields of config.json whose other values this code would compute wrongly; absent is right.
    ``has_qkv_bias`` None asks config.json. ``trained_len`` is there where config.json promises longer
    contexts than the family was trained on.
    """

    name: str
    architectures: tuple[str, ...]
    special: SpecialTexts
    rope_theta: float  # where config.json does not say
    rms_norm_eps: float
    needs: Mapping[str, object]
    keys: ConfigKeys = field(default_factory=ConfigKeys)
    weights: WeightNames = field(default_factory=WeightNames)
    has_qkv_bias: bool | None = None
    shift: int = 0
    trained_len: int | None = None

    def parse(
        self,
        values: Mapping[str, Any],
        architecture: str,
        generation: Mapping[str, Any],
        names: TokenNames,
    ) -> ModelConfig:
        """``values`` of config.json and ``generation`` of generation_config.json in the one shape for all."""
        fields, keys = Fields(values), self.keys
        for name, only in self.needs.items():
            fields.require(name, only)
        heads, vocab_size = fields.integer(keys.n_heads), fields.integer("vocab_size")
        declared = Declared(
            {"config.json": values, "generation_config.json": generation}, names, self.special, vocab_size
        )
        longest = fields.integer(keys.max_model_len)
        mask = declared.mask_token_id()
        bias = fields.flag(keys.has_qkv_bias, False) if self.has_qkv_bias is None else self.has_qkv_bias
        return ModelConfig(
            architecture=architecture,
            d_model=fields.integer(keys.d_model),
            n_layers=fields.integer(keys.n_layers),
            n_heads=heads,
            n_kv_heads=fields.integer(keys.n_kv_heads, heads),
            mlp_width=fields.integer(keys.mlp_width),
            vocab_size=vocab_size,
            embedding_rows=fields.integer(keys.embedding_rows, vocab_size),
            max_model_len=longest,
            trained_len=longest if self.trained_len is None else min(self.trained_len, longest),
            rope_theta=fields.number("rope_theta", self.rope_theta),
            rms_norm_eps=fields.number("rms_norm_eps", self.rms_norm_eps),
            is_tied=fields.flag(keys.is_tied, False),
            has_qkv_bias=bias,
            shift=self.shift,
            mask_token_id=mask,
            eos_token_ids=declared.eos_token_ids(mask),
        )

    def weight_targets(self, config: ModelConfig) -> dict[str, Target]:
        """Checkpoint name -> where it goes."""
        names = self.weights
        targets = {names.embedding: Target("embedding"), names.final_norm: Target("final_norm")}
        if not config.is_tied:
            targets[names.lm_head] = Target("lm_head")
        parts = names.in_layer(has_qkv_bias=config.has_qkv_bias)
        for layer in range(config.n_layers):
            root = names.layer.format(layer)
            for name, (parameter, part) in parts.items():
                targets[root + name] = Target(parameter, part, layer)
        return targets

    def check_unused(self, config: ModelConfig, name: str) -> None:
        """Refuse a stored weight that has no target: the model was trained with it, and answers would be
        wrong without it. The head of a tied model and tables that are computed here do no harm."""
        if _HARMLESS.search(name) or (config.is_tied and name == self.weights.lm_head):
            return
        kind = "images" if re.search(r"vision|visual|image", name) else ""
        what = f": it belongs to {kind}, and only text models are served" if kind else ""
        raise ModelError(
            f"weight {name} is not one of {self.name}'s with {config.n_layers} layers{what or _REMEDY}"
        )


_REMEDY = ": correct config.json (architectures, number of layers, biases) or serve another checkpoint"
