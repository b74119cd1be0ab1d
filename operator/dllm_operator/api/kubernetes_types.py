"""Parts of the Kubernetes API that the resource takes over."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from dllm_operator.api.base import ApiModel
from dllm_operator.api.cel import Rule, validations
from dllm_operator.api.quantity import Quantity, has_more_zeros

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

ObjectName = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=253)]
KeyName = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
LabelValue = Annotated[
    str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)
]
ClaimName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)
]
NodeSelector = Annotated[dict[str, LabelValue], Field(max_length=32)]


def list_map(key: str) -> JsonDict:
    """``json_schema_extra`` of a list whose items differ in ``key``; the API server refuses doubles."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class TolerationOperator(StrEnum):
    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class ImagePullPolicy(StrEnum):
    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class Toleration(ApiModel):
    """A taint that the pods tolerate."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            Rule(
                rule="!has(self.operator) || self.operator != 'Exists' || !has(self.value) "
                "|| self.value == ''",
                message="operator Exists takes any value: remove value, or set operator Equal",
                field_path=".value",
            ),
            Rule(
                rule="(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
                message="a toleration without a key is of every taint: set operator Exists, or a key",
                field_path=".operator",
            ),
            Rule(
                rule="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                message="tolerationSeconds is for effect NoExecute: set that effect, or remove it",
                field_path=".tolerationSeconds",
            ),
        )
    )

    key: str | None = Field(None, max_length=317, description="Taint key; unset with Exists: every taint.")
    operator: TolerationOperator | None = Field(
        None,
        description="Exists: whatever the value; Equal: the same value (what Kubernetes takes if unset).",
    )
    value: str | None = Field(None, max_length=63, description="Taint value, with operator Equal.")
    effect: TaintEffect | None = Field(None, description="Taint effect; unset: every effect.")
    toleration_seconds: int | None = Field(
        None, description="With effect NoExecute, seconds to stay on the node; unset: for ever."
    )


class ResourceClaim(ApiModel):
    """A device claim of the pod that the engine's container uses."""

    name: ClaimName = Field(description="Name of the claim in podTemplate.resourceClaims.")
    request: str | None = Field(None, max_length=63, description="One request of the claim; unset: all.")


class ResourceRequirements(ApiModel):
    """Compute resources of the engine's container; the operator adds the GPUs."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            Rule(
                rule="!has(self.limits) || !has(self.requests) || self.requests.all(name, "
                "!(name in self.limits) || "
                f"{has_more_zeros('self.requests[name]', 'self.limits[name]')} || "
                "quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
                message="a request exceeds the limit of the same resource: lower it, or raise the limit",
                field_path=".requests",
            )
        )
    )

    limits: dict[str, Quantity] | None = Field(
        None, max_length=32, description="Most that the container may use, by resource name."
    )
    requests: dict[str, Quantity] | None = Field(
        None, max_length=32, description="What the scheduler reserves, by resource name; limits if unset."
    )
    claims: tuple[ResourceClaim, ...] | None = Field(
        None, max_length=16, description="Device claims to use.", json_schema_extra=list_map("name")
    )


class LocalObjectReference(ApiModel):
    """An object of the same namespace."""

    name: ObjectName = Field(description="Name of the object.")
