"""`status`: what the operator saw and did."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field, PlainSerializer
from pydantic.config import JsonDict

from dllm_operator.api.base import ApiModel
from dllm_operator.api.kubernetes_types import list_map


def _seconds_in_utc(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Timestamp = Annotated[AwareDatetime, PlainSerializer(_seconds_in_utc, when_used="json")]


class ConditionType(StrEnum):
    READY = "Ready"
    PROGRESSING = "Progressing"
    SPEC_VALID = "SpecValid"
    POOLS_SCHEDULED = "PoolsScheduled"
    TUNING_CONVERGED = "TuningConverged"
    INTEGRATIONS_READY = "IntegrationsReady"
    DOOR_READY = "DoorReady"
    SCALING_ACTIVE = "ScalingActive"


SOMETIMES = (ConditionType.DOOR_READY, ConditionType.SCALING_ACTIVE)  # only where there is such a thing


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


def _without_defaults(schema: JsonDict) -> None:
    """The operator writes every field itself, so the API server has nothing to add."""
    properties = schema["properties"]
    assert isinstance(properties, dict)  # noqa: S101 - pydantic's own schema of a class
    for part in properties.values():
        assert isinstance(part, dict)  # noqa: S101
        part.pop("default", None)


class StatusModel(ApiModel):
    """A part of the status; fields that a newer operator wrote are left out."""

    model_config = ConfigDict(extra="ignore", json_schema_extra=_without_defaults)


class Condition(StatusModel):
    """One statement about the resource."""

    type: str = Field(
        min_length=1,
        max_length=316,
        description="What it is about: Ready, Progressing, SpecValid, PoolsScheduled, TuningConverged, "
        "IntegrationsReady, DoorReady or ScalingActive.",
    )
    status: ConditionStatus = Field(description="Whether it holds.")
    reason: str = Field(min_length=1, max_length=1024, description="One word for programs.")
    message: str = Field("", max_length=32768, description="A sentence for people.")
    last_transition_time: Timestamp = Field(description="When the status last changed.")
    observed_generation: int | None = Field(
        None, ge=0, description="Generation of the resource that it is about."
    )


class TunedSettings(StatusModel):
    """Settings of the engine that the tuner governs, as they are in force or about to be."""

    max_num_batched_tokens: int = Field(ge=1, description="Token budget of a step.")
    max_num_seqs: int = Field(ge=1, description="Requests in flight.")
    max_num_logits: int = Field(ge=1, description="Rows projected to the vocabulary at once.")
    refresh_share: float = Field(gt=0, le=1, description="Share of the token budget for refreshes.")
    kv_pool_bytes: int | None = Field(None, ge=0, description="Bytes of the KV pages.")


class LastChange(StatusModel):
    """The newest change of the settings."""

    reason: str = Field(max_length=64, description="One word for programs.")
    message: str = Field(max_length=1024, description="What was changed, and why.")
    time: Timestamp = Field(description="When.")


class LearnedValues(StatusModel):
    """What the pool's windows taught about its GPU type."""

    bytes_per_token: int | None = Field(None, ge=0, description="Activation bytes of a step per query token.")
    other_bytes: int | None = Field(None, ge=0, description="Bytes that belong to no setting.")
    step_floor_microseconds: int | None = Field(None, ge=0, description="Time of a step without tokens.")
    tokens_per_second: int | None = Field(None, ge=0, description="Query tokens a second beyond that.")
    ceiling_tokens: int | None = Field(
        None, ge=0, description="Token budget that ran out of memory; avoided for a long time."
    )


class PoolTuningStatus(StatusModel):
    """How a pool is tuned, and why so."""

    generation: int = Field(0, ge=0, description="Number of the newest settings; 0 are those of the spec.")
    settings: TunedSettings = Field(description="The newest settings.")
    converged: bool = Field(False, description="Whether the last looks asked for no change.")
    reason: str = Field(max_length=64, description="What the last look led to, in one word.")
    message: str = Field("", max_length=1024, description="What the last look led to.")
    notes: tuple[str, ...] = Field(
        default_factory=tuple,
        max_length=8,
        description="Pods that say nothing, refuse the settings, or differ from the others.",
    )
    proposal: str | None = Field(None, max_length=1024, description="What mode Observe would change.")
    observed_peak_bytes: int = Field(
        0, ge=0, description="Most bytes of a device that a pod held in the last window."
    )
    headroom_bytes: int = Field(0, ge=0, description="What that left of the device.")
    out_of_memory: int = Field(0, ge=0, description="Times the device ran out of memory.")
    host_out_of_memory: int = Field(0, ge=0, description="Times the kubelet ended a pod at its memory limit.")
    last_change: LastChange | None = Field(None, description="The newest change.")
    looked_at: Timestamp | None = Field(None, description="When the pods were last read.")
    edited_at: Timestamp | None = Field(
        None, description="When someone else's edit of the tuning ConfigMap was last undone."
    )
    learned: LearnedValues = Field(
        default_factory=LearnedValues, description="What the pool's windows taught about its GPU type."
    )
    memory: str = Field(
        max_length=8192, description="What the tuner needs to go on after a restart of the operator."
    )


class PoolStatus(StatusModel):
    """A pool as it is."""

    name: str = Field(max_length=63, description="Name of the pool.")
    product: str | None = Field(None, description="GPU product as the nodes spell it; unset on CPUs.")
    memory_mib: int | None = Field(None, ge=0, description="Memory of one GPU in MiB.")
    replicas: int = Field(0, ge=0, description="Pods of the pool.")
    ready_replicas: int = Field(0, ge=0, description="Pods that answer requests.")
    gpus: int = Field(0, ge=0, description="GPUs that the pods hold.")
    tuning: PoolTuningStatus | None = Field(None, description="How the pool is tuned; unset before.")


class DLLMDeploymentStatus(StatusModel):
    """What the operator saw and did."""

    observed_generation: int | None = Field(
        None,
        ge=0,
        description="Generation of the resource that this status is about; it stays behind where the "
        "operator failed (reason InternalError).",
    )
    managed_by: str | None = Field(
        None,
        max_length=320,
        description="Lease (NAMESPACE/NAME) of the operator that looks after the resource. Another one whose "
        "namespaces overlap leaves it alone until that Lease is gone or has not been renewed for a while.",
    )
    conditions: tuple[Condition, ...] = Field(
        default_factory=tuple,
        max_length=32,
        description="Statements about the resource, one a type.",
        json_schema_extra=list_map("type"),
    )
    replicas: int = Field(0, ge=0, description="Pods of all pools.")
    ready_replicas: int = Field(0, ge=0, description="Pods of all pools that answer requests.")
    selector: str | None = Field(None, description="Label selector of the pods, for autoscalers.")
    gpus: int = Field(0, ge=0, description="GPUs that the pods hold.")
    tuned: str | None = Field(None, description="Token budget of each pool, where it is tuned.")
    url: str | None = Field(None, description="Address of the API inside the cluster.")
    pools: tuple[PoolStatus, ...] = Field(
        default_factory=tuple,
        max_length=64,
        description="The pools, declared or discovered.",
        json_schema_extra=list_map("name"),
    )
