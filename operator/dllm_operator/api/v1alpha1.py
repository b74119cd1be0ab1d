"""The types of `serving.dllm.dev/v1alpha1`, in one place."""

from __future__ import annotations

from dllm_operator.api.autoscaling import AutoscalingMetric, AutoscalingSpec, MetricName
from dllm_operator.api.deployment import DLLMDeploymentSpec
from dllm_operator.api.engine import EngineSpec
from dllm_operator.api.environment import EnvVar
from dllm_operator.api.gpu_pool import GpuPool
from dllm_operator.api.kubernetes_types import (
    ImagePullPolicy,
    LocalObjectReference,
    ResourceClaim,
    ResourceRequirements,
    TaintEffect,
    Toleration,
    TolerationOperator,
)
from dllm_operator.api.model import AccessMode, ModelCache, ModelSpec, TokenSecret
from dllm_operator.api.networking import (
    ApiKeysSecret,
    AuthSpec,
    EndpointPicker,
    FrontDoor,
    InferencePoolSpec,
    MonitoringSpec,
    NetworkingSpec,
    NetworkPolicySpec,
)
from dllm_operator.api.pod_template import PodTemplate, RollingUpdate, RollingUpdateMode
from dllm_operator.api.rollout import RolloutSpec
from dllm_operator.api.source import EmbeddedSource, HubSource, ModelSource, PvcSource
from dllm_operator.api.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    DLLMDeploymentStatus,
    PoolStatus,
    PoolTuningStatus,
)
from dllm_operator.api.tuning import (
    CountBounds,
    RequestBounds,
    ShareBounds,
    TuningBounds,
    TuningMode,
    TuningSpec,
)
from dllm_operator.api.validation import check_spec

GROUP = "serving.dllm.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "DLLMDeployment"
PLURAL = "dllmdeployments"
SINGULAR = "dllmdeployment"
SHORT_NAME = "dllm"

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "SHORT_NAME",
    "SINGULAR",
    "VERSION",
    "AccessMode",
    "ApiKeysSecret",
    "AuthSpec",
    "AutoscalingMetric",
    "AutoscalingSpec",
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "CountBounds",
    "DLLMDeploymentSpec",
    "DLLMDeploymentStatus",
    "EmbeddedSource",
    "EndpointPicker",
    "EngineSpec",
    "EnvVar",
    "FrontDoor",
    "GpuPool",
    "HubSource",
    "ImagePullPolicy",
    "InferencePoolSpec",
    "LocalObjectReference",
    "MetricName",
    "ModelCache",
    "ModelSource",
    "ModelSpec",
    "MonitoringSpec",
    "NetworkPolicySpec",
    "NetworkingSpec",
    "PodTemplate",
    "PoolStatus",
    "PoolTuningStatus",
    "PvcSource",
    "RequestBounds",
    "ResourceClaim",
    "ResourceRequirements",
    "RollingUpdate",
    "RollingUpdateMode",
    "RolloutSpec",
    "ShareBounds",
    "TaintEffect",
    "TokenSecret",
    "Toleration",
    "TolerationOperator",
    "TuningBounds",
    "TuningMode",
    "TuningSpec",
    "check_spec",
]
