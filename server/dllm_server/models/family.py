"""A family of models as data: what config.json and the weights are called, and what is computed from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from dllm_server.models.config import BlockCausal, Decoding, Experts, Fields, ModelConfig
from dllm_server.models.files import ModelError
from dllm_server.models.names import ConfigKeys, WeightNames
from dllm_server.models.special_tokens import CONFIG, GENERATION, Declared, SpecialTexts, TokenNames
from dllm_server.models.transformer import Target

log = structlog.get_logger(__name__)

_HARMLESS = re.compile(r"(^|\.)(inv_freq|position_ids)$")  # computed here, whatever the file says


@dataclass(frozen=True, slots=True)
class BlockKeys:
    """What a block-causal family calls its grid and decoding in config.json and generation_config.json; each
    is looked for in this order, and ``default`` has what neither says. Empty: no such field.

    ``has_sizes``: the family has checkpoints of several block lengths, so that a config which names none
    deserves a warning.
    """

    default: BlockCausal
    block_length: str
    value: str
    has_sizes: bool = False
    edit_threshold: str = ""
    max_post_edit_steps: str = ""
    sub_block_length: str = ""

    def parse(self, files: Sequence[Fields]) -> BlockCausal:
        def integer(name: str, default: int | None) -> int | None:
            return next((file.integer(name) for file in files if file.has(name)), default)

        def number(name: str, default: float | None) -> float | None:
            return next((file.number(name) for file in files if file.has(name)), default)

        default, decoding = self.default, self.default.decoding
        block_length = integer(self.block_length, None)
        if block_length is None:
            block_length = default.block_length
            if self.has_sizes:
                log.warning(
                    f"config.json lacks {self.block_length}: the family's is taken", tokens=block_length
                )
        value = number(self.value, None)
        edits = number(self.edit_threshold, decoding.edit_threshold)
        return BlockCausal(
            block_length,
            Decoding(
                decoding.strategy,
                decoding.value if value is None else value,
                edits,
                None if edits is None else integer(self.max_post_edit_steps, decoding.max_post_edit_steps),
            ),
            integer(self.sub_block_length, default.sub_block_length),
        )


def no_experts(fields: Fields, n_layers: int) -> Experts | None:
    """Of families whose layers are all dense."""
    return None


@dataclass(frozen=True, slots=True)
class Family:
    """All that tells one family from another.

    ``needs`` are fields of config.json whose other values this code would compute wrongly; absent is right.
    ``has_qkv_bias`` and ``has_head_norms`` None ask config.json. ``experts`` reads the routed layers out of
    config.json and the number of layers. ``blocks`` None: every position sees every other. ``trained_len`` is
    there where config.json promises longer contexts than the family was trained on.
    """

    name: str
    architectures: tuple[str, ...]
    special: SpecialTexts
    needs: Mapping[str, object]
    rope_theta: float | None = None  # where config.json does not say; None: it must
    rms_norm_eps: float | None = None
    keys: ConfigKeys = field(default_factory=ConfigKeys)
    weights: WeightNames = field(default_factory=WeightNames)
    has_qkv_bias: bool | None = None
    has_head_norms: bool | None = None
    experts: Callable[[Fields, int], Experts | None] = no_experts
    blocks: BlockKeys | None = None
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
        d_model, heads = fields.integer(keys.d_model), fields.integer(keys.n_heads)
        n_layers, vocab_size = fields.integer(keys.n_layers), fields.integer("vocab_size")
        head_dim = fields.integer(keys.head_dim, 0) or _head_dim(d_model, heads)
        declared = Declared({CONFIG: values, GENERATION: generation}, names, self.special, vocab_size)
        longest = fields.integer(keys.max_model_len)
        experts = self.experts(fields, n_layers)
        is_routed = experts is not None and len(experts.layers) == n_layers
        mask = declared.mask_token_id()
        return ModelConfig(
            architecture=architecture,
            d_model=d_model,
            n_layers=n_layers,
            n_heads=heads,
            n_kv_heads=fields.integer(keys.n_kv_heads, heads),
            head_dim=head_dim,
            rotary_dim=int(head_dim * fields.number(keys.turned_share, 1.0)),
            mlp_width=0 if is_routed else fields.integer(keys.mlp_width),
            vocab_size=vocab_size,
            embedding_rows=fields.integer(keys.embedding_rows, vocab_size),
            max_model_len=longest,
            trained_len=longest if self.trained_len is None else min(self.trained_len, longest),
            rope_theta=fields.number("rope_theta", self.rope_theta),
            rms_norm_eps=fields.number("rms_norm_eps", self.rms_norm_eps),
            is_tied=fields.flag(keys.is_tied, False),
            has_qkv_bias=_flag(fields, keys.has_qkv_bias, self.has_qkv_bias),
            has_head_norms=_flag(fields, keys.has_head_norms, self.has_head_norms),
            experts=experts,
            block_causal=self.blocks.parse((fields, Fields(generation, GENERATION))) if self.blocks else None,
            shift=self.shift,
            mask_token_id=mask,
            eos_token_ids=declared.eos_token_ids(mask),
        )

    def weight_targets(self, config: ModelConfig) -> dict[str, Target]:
        """Checkpoint name -> where it goes."""
        return self.weights.targets(config)

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


def _flag(fields: Fields, name: str, known: bool | None) -> bool:
    return fields.flag(name, False) if known is None else known


def _head_dim(d_model: int, heads: int) -> int:
    """Of a config that names none."""
    if heads > 0 and d_model % (2 * heads):
        raise ModelError(f"config.json: {heads} heads do not divide width {d_model} into heads of even width")
    return d_model // max(heads, 1)
