"""What a checkpoint's config.json says, in one shape for all families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dllm_server.memory import ModelShape
from dllm_server.models.files import ModelError


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A bidirectional transformer's definition.

    ``shift`` is 1 where logits at position i predict token i + 1 (Dream), else 0. ``trained_len`` is the
    longest sequence the model was trained on, at most ``max_model_len``. ``eos_token_ids`` holds at least
    one.
    """

    architecture: str
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    mlp_width: int
    vocab_size: int
    embedding_rows: int  # of the stored embedding, at least vocab_size
    max_model_len: int
    trained_len: int
    rope_theta: float
    rms_norm_eps: float
    is_tied: bool
    has_qkv_bias: bool
    shift: int
    mask_token_id: int
    eos_token_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "n_heads", "n_kv_heads", "mlp_width", "max_model_len"):
            if getattr(self, name) < 1:
                raise ModelError(f"config.json: {name} is {getattr(self, name)}, below 1")
        if self.d_model % (2 * self.n_heads) or self.n_heads % self.n_kv_heads:
            raise ModelError(
                f"config.json: {self.n_heads} heads and {self.n_kv_heads} KV heads "
                f"do not divide width {self.d_model} into heads of even width"
            )
        if self.embedding_rows < self.vocab_size:
            raise ModelError(
                f"config.json: {self.embedding_rows} embedding rows are fewer than "
                f"the vocabulary of {self.vocab_size}"
            )

    @property
    def eos_token_id(self) -> int:
        """The first of them, for places that any token of no meaning can fill."""
        return self.eos_token_ids[0]

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads

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
        )


class Fields:
    """Typed access to config.json whose errors name the field."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._values.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool):
            raise ModelError(f"config.json: {name} is {value!r}, not a whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._values.get(name)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ModelError(f"config.json: {name} is {value!r}, not a number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._values.get(name)
        return default if value is None else bool(value)

    def require(self, name: str, expected: object) -> None:
        """Refuse a variant of the architecture that this code would compute wrongly; absent is right."""
        value = self._values.get(name, expected)
        if value != expected:
            raise ModelError(f"config.json: {name} {value!r} is not supported, only {expected!r}")
