"""`spec.gpuPools`: groups of equal nodes, each with its own Deployment."""

from __future__ import annotations

from pydantic import Field

from dllm_operator.api.base import ApiModel
from dllm_operator.api.engine import EngineSpec
from dllm_operator.api.kubernetes_types import NodeSelector, ResourceRequirements, Toleration

MOST_POOLS = 16
POOL_NAME_PATTERN = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LONGEST_POOL_NAME = 20


class GpuPool(ApiModel):
    """Pods on one kind of GPU, with settings that fit it."""

    name: str = Field(
        pattern=POOL_NAME_PATTERN,
        min_length=1,
        max_length=LONGEST_POOL_NAME,
        description="Name of the pool, unique in the resource; its Deployment is NAME-POOL.",
    )
    product: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="GPU product in any spelling, e.g. 'NVIDIA L40S' or 'nvidia-l40s'; any GPU if unset.",
    )
    gpus_per_replica: int = Field(1, ge=1, le=16, description="GPUs a pod.")
    replicas: int | None = Field(
        None,
        ge=0,
        le=2**31 - 1,
        description="Fixed number of pods of this pool; the other pools share what spec.replicas leaves.",
    )
    node_selector: NodeSelector = Field(
        default_factory=dict, description="Node labels, besides those that product stands for."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default_factory=tuple, max_length=32, description="Taints that the pods of this pool tolerate."
    )
    cost_per_hour: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="Cost of one pod, in any unit that all pools share, for autoscaling by Builtin; "
        "gpusPerReplica if unset.",
    )
    engine: EngineSpec = Field(
        default_factory=EngineSpec, description="Engine settings of this pool, over spec.engine."
    )
    resources: ResourceRequirements | None = Field(
        None, description="Compute resources of this pool's pods, instead of podTemplate.resources."
    )
