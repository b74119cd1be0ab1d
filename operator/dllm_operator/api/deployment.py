"""`spec`: a model served by pods on one or more kinds of GPU."""

from __future__ import annotations

from typing import Literal

from dllm_server.settings import Device
from pydantic import ConfigDict, Field

from dllm_operator.api.autoscaling import AutoscalingSpec
from dllm_operator.api.base import ApiModel
from dllm_operator.api.cel import Rule, validations
from dllm_operator.api.engine import EngineSpec
from dllm_operator.api.gpu_pool import MOST_POOLS, GpuPool
from dllm_operator.api.kubernetes_types import list_map
from dllm_operator.api.model import ModelSpec
from dllm_operator.api.networking import AuthSpec, MonitoringSpec, NetworkingSpec
from dllm_operator.api.pod_template import PodTemplate
from dllm_operator.api.rollout import RolloutSpec
from dllm_operator.api.tuning import TuningSpec


def _stopped(spec: str) -> str:
    """CEL: the spec asks for no pod at all."""
    return (
        f"(has({spec}.replicas) && {spec}.replicas == 0 && "
        f"(!has({spec}.gpuPools) || {spec}.gpuPools.all(pool, !has(pool.replicas) || pool.replicas == 0)))"
    )


class DLLMDeploymentSpec(ApiModel):
    """A model served by pods on one or more kinds of GPU."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            Rule(
                rule="!has(self.replicas) || !has(self.autoscaling)",
                message="replicas and autoscaling exclude each other: remove one",
                naming="replicas {self.replicas} and autoscaling exclude each other: "
                "remove replicas, or remove autoscaling to scale by hand",
                field_path=".replicas",
                reason="FieldValueForbidden",
            ),
            Rule(
                rule="!has(self.autoscaling) || !has(self.gpuPools) "
                "|| self.gpuPools.all(pool, !has(pool.replicas))",
                message="autoscaling and gpuPools[].replicas exclude each other: remove one",
                field_path=".gpuPools",
                reason="FieldValueForbidden",
            ),
            Rule(
                rule="self.model.source == oldSelf.model.source "
                f"|| {_stopped('self')} || {_stopped('oldSelf')}",
                message="model.source cannot change while serving: scale to 0 (replicas: 0, without "
                "autoscaling and pools with replicas), or create another DLLMDeployment",
                naming="model.source cannot change from '{oldSelf.model.source}' to '{self.model.source}' "
                "while serving: scale to 0 (replicas: 0, without autoscaling and pools with replicas), "
                "or create another DLLMDeployment",
                field_path=".model.source",
                reason="FieldValueForbidden",
            ),
        )
    )

    model: ModelSpec = Field(description="The model to serve.")
    image: str | None = Field(
        None,
        min_length=1,
        max_length=512,
        pattern=r"^\S+$",
        description="Image of the server; the operator's own choice if unset.",
    )
    replicas: int | None = Field(
        None,
        ge=0,
        le=2**31 - 1,
        description="Pods in total, divided over the pools (the first pools get the remainder); one a pool "
        "if unset. Pools with their own replicas count in. Excludes autoscaling.",
    )
    device: Literal[Device.CUDA, Device.CPU] = Field(Device.CUDA, description="What the model runs on.")
    gpu_pools: tuple[GpuPool, ...] = Field(
        default_factory=tuple,
        max_length=MOST_POOLS,
        description="Kinds of GPU to run on, each with its own Deployment and settings; found from the "
        "labels of the nodes if unset.",
        json_schema_extra=list_map("name") | {"minItems": 1},
    )
    engine: EngineSpec = Field(
        default_factory=EngineSpec,
        description="Settings of the engine; what is unset keeps the server's default.",
    )
    tuning: TuningSpec = Field(
        default_factory=TuningSpec,
        description="How the operator adapts the engine's budgets to the GPU's memory.",
        json_schema_extra={"default": {}},
    )
    autoscaling: AutoscalingSpec | None = Field(
        None,
        description="Number of pods of each pool under load, by KEDA or by the operator itself. Excludes "
        "replicas.",
    )
    auth: AuthSpec = Field(default_factory=AuthSpec, description="Who may use the API.")
    networking: NetworkingSpec = Field(
        default_factory=NetworkingSpec, description="Port, timeout and network objects of the API."
    )
    monitoring: MonitoringSpec = Field(default_factory=MonitoringSpec, description="What scrapes the pods.")
    pod_template: PodTemplate = Field(
        default_factory=PodTemplate, description="What the engine's pods look like beyond the model."
    )
    rollout: RolloutSpec = Field(
        default_factory=RolloutSpec,
        description="When changes of the pods' template are made, and when one has failed.",
    )
