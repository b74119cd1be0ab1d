"""`spec.rollout`: when changes of the pods' template are made, and when one has failed."""

from __future__ import annotations

from pydantic import Field

from dllm_operator.api.base import ApiModel


class RolloutSpec(ApiModel):
    """When changes of the pods' template are made, and when one has failed."""

    pause: bool = Field(
        False,
        description="Hold changes of the pods' template: pools keep the one they have. Their number still "
        "follows.",
    )
    progress_deadline_seconds: int | None = Field(
        None,
        ge=5,
        le=604_800,
        description="Seconds without a new pod that becomes ready after which a rollout has failed; "
        "podTemplate.startupTimeoutSeconds and five minutes if unset.",
    )
