"""`spec.tuning`: how the operator adapts the engine's budgets to the GPU's memory."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from dllm_operator.api.base import ApiModel
from dllm_operator.api.cel import Rule, validations

_ORDERED = validations(
    Rule(
        rule="!has(self.min) || !has(self.max) || self.min <= self.max",
        message="min exceeds max: lower min or raise max",
        naming="min {self.min} exceeds max {self.max}: lower min or raise max",
    )
)


class TuningMode(StrEnum):
    OFF = "Off"
    OBSERVE = "Observe"
    AUTO = "Auto"


class CountBounds(ApiModel):
    """Smallest and largest value of a count."""

    model_config = ConfigDict(json_schema_extra=_ORDERED)

    min: int | None = Field(None, ge=1, le=2**31 - 1, description="Smallest value the tuner may set.")
    max: int | None = Field(None, ge=1, le=2**31 - 1, description="Largest value the tuner may set.")


class RequestBounds(CountBounds):
    """Smallest and largest number of requests in flight."""

    min: int | None = Field(None, ge=1, le=4096, description="Smallest value the tuner may set.")
    max: int | None = Field(None, ge=1, le=4096, description="Largest value the tuner may set.")


class ShareBounds(ApiModel):
    """Smallest and largest value of a share."""

    model_config = ConfigDict(json_schema_extra=_ORDERED)

    min: float | None = Field(None, gt=0, le=1, description="Smallest value the tuner may set.")
    max: float | None = Field(None, gt=0, le=1, description="Largest value the tuner may set.")


class TuningBounds(ApiModel):
    """Limits of what the tuner may set."""

    max_num_batched_tokens: CountBounds = Field(
        default_factory=CountBounds, description="Limits of the token budget of a step."
    )
    max_num_seqs: RequestBounds = Field(
        default_factory=RequestBounds, description="Limits of the number of requests in flight."
    )
    max_num_logits: CountBounds = Field(
        default_factory=CountBounds, description="Limits of the rows projected to the vocabulary at once."
    )
    refresh_share: ShareBounds = Field(
        default_factory=ShareBounds, description="Limits of the share of the token budget for refreshes."
    )


class TuningSpec(ApiModel):
    """How the operator adapts the engine's budgets to the GPU's memory."""

    mode: TuningMode = Field(
        TuningMode.OFF,
        description="Off: leave the budgets alone; Observe: say what would change; Auto: change it.",
    )
    target_memory_utilization: float = Field(
        0.9, ge=0.5, le=0.98, description="Share of the GPU's memory to aim at."
    )
    interval_seconds: int = Field(60, ge=5, le=3600, description="Seconds between two looks at a pool.")
    latency_p95_seconds: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="95th percentile of a request's latency to keep below; refreshes and budget give way.",
    )
    bounds: TuningBounds = Field(
        default_factory=TuningBounds,
        description="Limits of what the tuner may set; the engine's own if unset.",
    )
