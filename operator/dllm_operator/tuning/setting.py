"""What a pool's engines are told, and between which bounds."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Setting:
    """``kv_pool_bytes`` and more sequences than at the start take a restart; the rest is live."""

    max_num_batched_tokens: int
    max_num_seqs: int
    max_num_logits: int
    refresh_share: float
    kv_pool_bytes: int


@dataclass(frozen=True, slots=True)
class Range:
    """Inclusive."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} exceeds high {self.high}")

    def clamp(self, value: float) -> float:
        return min(max(value, self.low), self.high)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The user's bounds within the engine's: ``tokens.low`` is at least what one request needs in a step."""

    tokens: Range
    seqs: Range
    logits: Range
    refresh_share: Range

    def clamp(self, setting: Setting) -> Setting:
        return replace(
            setting,
            max_num_batched_tokens=int(self.tokens.clamp(setting.max_num_batched_tokens)),
            max_num_seqs=int(self.seqs.clamp(setting.max_num_seqs)),
            max_num_logits=int(self.logits.clamp(setting.max_num_logits)),
            refresh_share=self.refresh_share.clamp(setting.refresh_share),
        )

    def holds(self, setting: Setting) -> bool:
        return self.clamp(setting) == setting


def difference(before: Setting, after: Setting) -> str:
    """``name old -> new`` of what differs."""
    names = ("max_num_batched_tokens", "max_num_seqs", "max_num_logits", "refresh_share", "kv_pool_bytes")
    changes = ((name, getattr(before, name), getattr(after, name)) for name in names)
    return ", ".join(f"{name} {old:g} -> {new:g}" for name, old, new in changes if old != new)
