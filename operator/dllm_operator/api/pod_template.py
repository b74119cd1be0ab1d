"""`spec.podTemplate`: what the engine's pods look like beyond the model."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from dllm_operator.api.affinity import Affinity
from dllm_operator.api.base import ApiModel
from dllm_operator.api.cel import Rule, validations
from dllm_operator.api.environment import EnvVar
from dllm_operator.api.kubernetes_types import (
    ClaimName,
    ImagePullPolicy,
    LabelValue,
    LocalObjectReference,
    NodeSelector,
    ObjectName,
    ResourceRequirements,
    Toleration,
    list_map,
)

RESERVED_LABELS = (
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/name",
    "llm-d.ai/engine-type",
    "serving.dllm.dev/pool",
)
AnnotationValue = Annotated[str, StringConstraints(max_length=8192)]


def _cel_list(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


class PodResourceClaim(ApiModel):
    """A device claim of the pods, for resources.claims to name."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            Rule(
                rule="has(self.resourceClaimName) != has(self.resourceClaimTemplateName)",
                message="a claim needs exactly one of resourceClaimName (shared by all pods) and "
                "resourceClaimTemplateName (one each)",
            )
        )
    )

    name: ClaimName = Field(description="Name by which resources.claims refers to it.")
    resource_claim_name: ObjectName | None = Field(None, description="A ResourceClaim that all pods share.")
    resource_claim_template_name: ObjectName | None = Field(
        None, description="A ResourceClaimTemplate, of which each pod gets a claim of its own."
    )


class RollingUpdateMode(StrEnum):
    AUTO = "Auto"
    FIXED = "Fixed"


class RollingUpdate(ApiModel):
    """How a pool replaces its pods."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            Rule(
                rule="(has(self.maxSurge) ? self.maxSurge : 1) > 0 "
                "|| (has(self.maxUnavailable) ? self.maxUnavailable : 0) > 0",
                message="maxSurge and maxUnavailable are both 0, so no pod could ever be replaced: raise one",
            ),
            Rule(
                rule="!has(self.mode) || self.mode != 'Auto' "
                "|| (!has(self.maxSurge) && !has(self.maxUnavailable))",
                message="mode Auto chooses maxSurge and maxUnavailable itself: drop them, or set mode: Fixed",
                field_path=".mode",
            ),
        )
    )

    mode: RollingUpdateMode | None = Field(
        None,
        description="Auto: a new pod comes beside the old ones, or in the place of one where it finds no "
        "room. Fixed: as maxSurge and maxUnavailable say. Auto if unset, Fixed where one of those is given.",
    )
    max_surge: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="Pods above the wanted number; each needs a free GPU of its own. Fixed takes 1 if unset.",
    )
    max_unavailable: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="Pods below the wanted number; 1 with maxSurge 0 needs no free GPU. "
        "Fixed takes 0 if unset.",
    )

    @property
    def numbers(self) -> tuple[int, int] | None:
        """maxSurge and maxUnavailable where the author has fixed them."""
        given = (self.max_surge, self.max_unavailable)
        if self.mode is RollingUpdateMode.AUTO or (self.mode is None and given == (None, None)):
            return None
        return 1 if self.max_surge is None else self.max_surge, self.max_unavailable or 0


class PodTemplate(ApiModel):
    """What the engine's pods look like beyond the model."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            Rule(
                rule=f"!has(self.labels) || {_cel_list(RESERVED_LABELS)}.all(key, !(key in self.labels))",
                message="labels sets a label that the operator selects its pods by "
                f"({', '.join(RESERVED_LABELS)}): remove it",
                field_path=".labels",
                reason="FieldValueForbidden",
            )
        )
    )

    resources: ResourceRequirements | None = Field(
        None, description="Compute resources of the engine's container; the operator adds the GPUs."
    )
    resource_claims: tuple[PodResourceClaim, ...] = Field(
        default_factory=tuple,
        max_length=16,
        description="Device claims of the pods (dynamic resource allocation).",
        json_schema_extra=list_map("name"),
    )
    affinity: Affinity | None = Field(None, description="Affinity of the pods, as in a pod's spec.")
    env: tuple[EnvVar, ...] = Field(
        default_factory=tuple,
        max_length=64,
        description="More environment variables of the engine's container.",
        json_schema_extra=list_map("name"),
    )
    annotations: dict[str, AnnotationValue] = Field(
        default_factory=dict, max_length=64, description="More annotations of the pods."
    )
    labels: dict[str, LabelValue] = Field(
        default_factory=dict, max_length=64, description="More labels of the pods."
    )
    node_selector: NodeSelector = Field(
        default_factory=dict, description="Node labels for the pods of all pools."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default_factory=tuple, max_length=32, description="Taints that the pods of all pools tolerate."
    )
    priority_class_name: ObjectName | None = Field(None, description="Priority class of the pods.")
    runtime_class_name: ObjectName | None = Field(None, description="Runtime class of the pods, e.g. nvidia.")
    image_pull_policy: ImagePullPolicy | None = Field(
        None, description="When to pull the image; the operator's own setting if unset."
    )
    image_pull_secrets: tuple[LocalObjectReference, ...] = Field(
        default_factory=tuple,
        max_length=16,
        description="Secrets to pull the image with.",
        json_schema_extra=list_map("name"),
    )
    rolling_update: RollingUpdate = Field(
        default_factory=RollingUpdate, description="How a pool replaces its pods."
    )
    read_only_root_filesystem: bool = Field(
        True, description="Whether the root filesystem is read-only; some GPU runtimes need false."
    )
    startup_timeout_seconds: int = Field(
        1800, ge=10, le=86400, description="Seconds a pod may take to load the model before it is restarted."
    )
