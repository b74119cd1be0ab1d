"""How a resource is scaled, as the operator keeps it between two looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dllm_operator.scaling.policy import ScalingReason


@dataclass(frozen=True, slots=True)
class Scaling:
    """``pods`` asked for, by pool; none before the first look. ``reason`` and ``message`` are those of the
    last look that led to something else; ``silent`` says why the door cannot be looked at."""

    pods: Mapping[str, int] = field(default_factory=dict)
    reason: ScalingReason | None = None
    message: str = ""
    silent: str = ""
