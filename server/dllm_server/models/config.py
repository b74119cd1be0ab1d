"""What a checkpoint's config.json says, in one shape for all families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dllm_server.memory import ModelShape, RoutedShape
from dllm_server.models.files import ModelError
from dllm_server.settings import Strategy

if TYPE_CHECKING:  # the API process reads this page and holds no tensors
    from dllm_kernels.routing import RoutingRule


@dataclass(frozen=True, slots=True)
class Experts:
    """Feed-forward layers of which each token takes a few experts: ``layers`` are such, all others dense.

    ``count`` experts of ``width`` are routed; ``rule`` says how, and how many more every token takes.
    """

    layers: tuple[int, ...]
    count: int
    width: int
    has_bias: bool
    rule: RoutingRule

    @property
    def shape(self) -> RoutedShape:
        return RoutedShape(
            layers=len(self.layers),
            experts=self.count,
            chosen=self.rule.chosen,
            shared=self.rule.shared,
            width=self.width,
            has_bias=self.has_bias,
        )


@dataclass(frozen=True, slots=True)
class Decoding:
    """What a request gets that asks for nothing else.

    With ``edit_threshold`` a token of the block that is denoised may be replaced by another whose probability
    exceeds it, in at most ``max_post_edit_steps`` steps after the last mask is gone.
    """

    strategy: Strategy
    value: float
    edit_threshold: float | None = None
    max_post_edit_steps: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.value), ("editing_threshold", self.edit_threshold)):
            if value is not None and not 0 <= value <= 1:
                raise ModelError(f"config.json or generation_config.json: {name} {value} is not 0 to 1")
        if self.max_post_edit_steps is not None and self.max_post_edit_steps < 0:
            raise ModelError(
                f"config.json or generation_config.json: max_post_steps {self.max_post_edit_steps} is below 0"
            )


@dataclass(frozen=True, slots=True)
class BlockCausal:
    """A position sees the blocks before its own, and all of its own. Blocks of ``block_length`` lie on a grid
    from position 0; within one, sub-blocks are denoised from left to right where there are any."""

    block_length: int
    decoding: Decoding
    sub_block_length: int | None = None

    def __post_init__(self) -> None:
        if self.block_length < 1:
            raise ModelError(f"config.json: blocks of {self.block_length} tokens are below 1")
        if self.sub_block_length is not None and (
            self.sub_block_length < 1 or self.block_length % self.sub_block_length
        ):
            raise ModelError(
                f"config.json: sub-blocks of {self.sub_block_length} tokens do not divide blocks of "
                f"{self.block_length}"
            )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A transformer's definition; each part that a family lacks is None, False or 0.

    ``rotary_dim`` is how many of a head's ``head_dim`` dimensions turn with the position. ``shift`` is 1
    where logits at position i predict token i + 1, else 0. ``trained_len`` is the longest sequence the model
    was trained on, at most ``max_model_len``. ``eos_token_ids`` holds at least one. ``block_causal`` None:
    every position sees every other.
    """

    architecture: str
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rotary_dim: int
    mlp_width: int
    vocab_size: int
    embedding_rows: int  # of the stored embedding, at least vocab_size
    max_model_len: int
    trained_len: int
    rope_theta: float
    rms_norm_eps: float
    is_tied: bool
    has_qkv_bias: bool
    has_head_norms: bool
    experts: Experts | None
    block_causal: BlockCausal | None
    shift: int
    mask_token_id: int
    eos_token_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "max_model_len"):
            self._require_one(name, getattr(self, name))
        if self.dense_layers:
            self._require_one("mlp_width", self.mlp_width)
        if self.experts is not None:
            self._require_one("expert width", self.experts.width)
            self._check_routing(self.experts)
        if self.n_heads % self.n_kv_heads:
            raise ModelError(
                f"config.json: {self.n_heads} heads are no multiple of {self.n_kv_heads} KV heads"
            )
        if self.head_dim % 2:
            raise ModelError(f"config.json: head_dim {self.head_dim} is odd")
        if self.rotary_dim % 2 or not 2 <= self.rotary_dim <= self.head_dim:
            raise ModelError(
                f"config.json: {self.rotary_dim} of {self.head_dim} dimensions of a head cannot turn"
            )
        if self.embedding_rows < self.vocab_size:
            raise ModelError(
                f"config.json: {self.embedding_rows} embedding rows are fewer than "
                f"the vocabulary of {self.vocab_size}"
            )

    @staticmethod
    def _require_one(name: str, value: int) -> None:
        if value < 1:
            raise ModelError(f"config.json: {name} is {value}, below 1")

    @staticmethod
    def _check_routing(experts: Experts) -> None:
        try:
            experts.rule.check(experts.count)
        except ValueError as error:
            raise ModelError(f"config.json: {error}") from error

    @property
    def eos_token_id(self) -> int:
        """The first of them, for places that any token of no meaning can fill."""
        return self.eos_token_ids[0]

    @property
    def grid(self) -> int:
        """Tokens of a block on the grid from position 0 where attention is block-causal, else 0."""
        return self.block_causal.block_length if self.block_causal is not None else 0

    @property
    def dense_layers(self) -> tuple[int, ...]:
        """Layers whose feed-forward part is one gated MLP."""
        routed = self.experts.layers if self.experts else ()
        return tuple(layer for layer in range(self.n_layers) if layer not in routed)

    def shape(self, name: str, dtype_bytes: int) -> ModelShape:
        return ModelShape(
            name=name,
            d_model=self.d_model,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            head_dim=self.head_dim,
            mlp_width=self.mlp_width,
            vocab_size=self.embedding_rows,
            max_model_len=self.max_model_len,
            trained_len=self.trained_len,
            is_tied=self.is_tied,
            has_qkv_bias=self.has_qkv_bias,
            dtype_bytes=dtype_bytes,
            grid=self.grid,
            has_head_norms=self.has_head_norms,
            rotary_dim=self.rotary_dim,
            routed=self.experts.shape if self.experts else None,
        )


class Fields:
    """Typed access to a JSON file whose errors name file and field."""

    def __init__(self, values: Mapping[str, Any], file: str = "config.json") -> None:
        self._values, self._file = values, file

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._values.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool):
            raise ModelError(f"{self._file}: {name} is {value!r}, not a whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._values.get(name)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ModelError(f"{self._file}: {name} is {value!r}, not a number")
        return float(value)

    def integers(self, name: str, default: list[int] | None = None) -> list[int]:
        value = self._values.get(name)
        value = default if value is None else value
        if not isinstance(value, list) or any(
            not isinstance(one, int) or isinstance(one, bool) for one in value
        ):
            raise ModelError(f"{self._file}: {name} is {value!r}, not a list of whole numbers")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._values.get(name)
        return default if value is None else bool(value)

    def require(self, name: str, expected: object) -> None:
        """Refuse a variant of the architecture that this code would compute wrongly; absent is right."""
        value = self._values.get(name, expected)
        if value != expected:
            raise ModelError(f"{self._file}: {name} {value!r} is not supported, only {expected!r}")
