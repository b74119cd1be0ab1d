"""How a canvas is denoised: commit strategies, confidences and the settings of a request."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Strategy(StrEnum):
    """How many masked tokens a step commits; every strategy commits at least the most confident one."""

    QUOTA = "quota"
    SEQUENTIAL = "sequential"
    THRESHOLD = "threshold"
    JOINT_THRESHOLD = "joint_threshold"
    FACTOR = "factor"
    ENTROPY_BOUND = "entropy_bound"


class Confidence(StrEnum):
    """What ranks masked positions."""

    PROBABILITY = "probability"
    MARGIN = "margin"
    ENTROPY = "entropy"
    RANDOM = "random"


_DEFAULT_VALUES: Mapping[Strategy, float] = MappingProxyType(
    {
        Strategy.QUOTA: 1.0,
        Strategy.SEQUENTIAL: 1.0,
        Strategy.THRESHOLD: 0.9,
        Strategy.JOINT_THRESHOLD: 0.95,
        Strategy.FACTOR: 1.0,
        Strategy.ENTROPY_BOUND: 0.1,
    }
)


def _default_value(unmasking: Mapping[str, Any]) -> float:
    """The value of a strategy that is given without one. A strategy that is none has been refused already."""
    return _DEFAULT_VALUES[unmasking.get("strategy", Strategy.THRESHOLD)]


class UnmaskingSettings(BaseModel):
    """Which masked tokens of the block are committed in a step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: Strategy = Field(Strategy.THRESHOLD, description="How many tokens a step commits.")
    value: float = Field(
        default_factory=_default_value,
        gt=0,
        allow_inf_nan=False,
        description="quota, sequential: tokens a step (a whole number, 1 if unset); threshold: confidence in "
        "(0, 1], 0.9 if unset; joint_threshold: the same, 0.95 if unset; factor: f > 0, 1 if unset; "
        "entropy_bound: summed entropy in nats, 0.1 if unset.",
    )

    @model_validator(mode="after")
    def _value_fits_the_strategy(self) -> Self:
        is_count = self.strategy in (Strategy.QUOTA, Strategy.SEQUENTIAL)
        if is_count and (self.value < 1 or self.value != int(self.value)):
            raise ValueError(
                f"value {self.value} is not a whole number of tokens a step: {self.strategy} needs 1, 2, ..."
            )
        if self.strategy in (Strategy.THRESHOLD, Strategy.JOINT_THRESHOLD) and self.value > 1:
            raise ValueError(f"value {self.value} exceeds 1: a threshold is a confidence in (0, 1]")
        return self


def _not_zero(start: int) -> int:
    if start == 0:
        raise ValueError("nothing stands before token 0 to score it by: use 1 or more, or less than 0")
    return start


LikelihoodStart = Annotated[int, AfterValidator(_not_zero)]


class DiffusionSettings(BaseModel):
    """How a canvas is denoised. Each field can be given per request; the server's values are the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block_length: int = Field(
        32, ge=1, le=1024, description="Tokens denoised together; blocks go left to right."
    )
    refresh_interval: int | None = Field(
        None,
        ge=1,
        description="Steps between refreshes inside a block; null refreshes once a block, 1 every step.",
    )
    prompt_refresh_interval: int = Field(
        1,
        ge=1,
        description="Blocks from one refresh of the prompt to the next; 1 has all refreshes recompute it. "
        "Above 1 what is not prompt is kept whole.",
    )
    refresh_window: int | None = Field(
        None,
        ge=0,
        description="Masks behind the block that a refresh without the prompt recomputes; null: all.",
    )
    unmasking: UnmaskingSettings = Field(default_factory=UnmaskingSettings, description="Commit strategy.")
    confidence: Confidence = Field(Confidence.PROBABILITY, description="What ranks masked positions.")
    retention_ratio: float = Field(
        1.0, gt=0, le=1, description="Share of context K/V each head keeps for reuse; 1 keeps all."
    )
    steps_per_block: int | None = Field(
        None,
        ge=1,
        description="Steps that share a block's tokens out evenly, the rest to the first ones: so many quota "
        "and sequential commit, in the place of their value, and the others at least.",
    )
    edit_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="joint_threshold: confidence above which another token replaces one of the block.",
    )
    max_post_edit_steps: int | None = Field(
        None,
        ge=0,
        le=1024,
        description="joint_threshold: steps that only edit, at most, before a block is done.",
    )
    sub_block_length: int | None = Field(
        None, ge=1, le=1024, description="Tokens of a block that are denoised together, from left to right."
    )
    likelihood_start: LikelihoodStart = Field(
        1, description="First token of a prompt that is scored; from its end if negative."
    )
    likelihood_block_length: int = Field(
        1,
        ge=1,
        description="Tokens scored together, by a bound; 1 is exact from left to right, one that reaches the "
        "end takes all from likelihood_start on.",
    )
    likelihood_samples: int = Field(
        128, ge=1, le=4096, description="Forward passes for each block of several tokens that is scored."
    )

    @model_validator(mode="after")
    def _strategy_understands_the_confidence(self) -> Self:
        needs_probability = self.unmasking.strategy in (
            Strategy.THRESHOLD,
            Strategy.JOINT_THRESHOLD,
            Strategy.FACTOR,
        )
        if needs_probability and self.confidence is Confidence.ENTROPY:
            raise ValueError(
                f"confidence 'entropy' is not in [0, 1], which strategy '{self.unmasking.strategy}' needs: "
                "use strategy 'entropy_bound' or 'quota', or confidence 'probability' or 'margin'"
            )
        return self
