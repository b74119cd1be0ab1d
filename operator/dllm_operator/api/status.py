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
        description="What it is about: Ready, Progressing, SpecValid, PoolsScheduled, TuningConverged or "
        "IntegrationsReady.",
    )
    status: ConditionStatus = Field(description="Whether it holds.")
    reason: str = Field(min_length=1, max_length=1024, description="One word for programs.")
    message: str = Field("", max_length=32768, description="A sentence for people.")
    last_transition_time: Timestamp = Field(description="When the status last changed.")
    observed_generation: int | None = Field(
        None, ge=0, description="Generation of the resource that it is about."
    )


class PoolStatus(StatusModel):
    """A pool as it is."""

    name: str = Field(max_length=63, description="Name of the pool.")
    product: str | None = Field(None, description="GPU product as the nodes spell it; unset on CPUs.")
    memory_mib: int | None = Field(None, ge=0, description="Memory of one GPU in MiB.")
    replicas: int = Field(0, ge=0, description="Pods of the pool.")
    ready_replicas: int = Field(0, ge=0, description="Pods that answer requests.")
    gpus: int = Field(0, ge=0, description="GPUs that the pods hold.")


class DLLMDeploymentStatus(StatusModel):
    """What the operator saw and did."""

    observed_generation: int | None = Field(
        None, ge=0, description="Generation of the resource that this status is about."
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
    url: str | None = Field(None, description="Address of the API inside the cluster.")
    pools: tuple[PoolStatus, ...] = Field(
        default_factory=tuple,
        max_length=64,
        description="The pools, declared or discovered.",
        json_schema_extra=list_map("name"),
    )
