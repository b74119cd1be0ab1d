"""`spec.auth`, `spec.networking` and `spec.monitoring`: who reaches the pods and how."""

from __future__ import annotations

from pydantic import Field

from dllm_operator.api.base import ApiModel
from dllm_operator.api.kubernetes_types import FreeForm, KeyName, ObjectName


class ApiKeysSecret(ApiModel):
    """A key of a Secret in the resource's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: KeyName = Field("keys", description="Key whose value holds one bearer key a line.")


class AuthSpec(ApiModel):
    """Who may use the API."""

    api_keys_secret: ApiKeysSecret | None = Field(
        None, description="Bearer keys that the API accepts; everybody who reaches it if unset."
    )


class NetworkPolicySpec(ApiModel):
    """The NetworkPolicy of the pods."""

    enabled: bool = Field(
        True,
        description="Whether to make a NetworkPolicy that lets nothing in but to the ports of the API and of "
        "the metrics.",
    )
    peers: tuple[FreeForm, ...] = Field(
        default_factory=tuple,
        alias="from",
        max_length=64,
        description="NetworkPolicyPeers (podSelector, namespaceSelector, ipBlock) that may reach the API's "
        "port; everybody if unset.",
    )
    metrics_peers: tuple[FreeForm, ...] | None = Field(
        None,
        alias="metricsFrom",
        max_length=64,
        description="NetworkPolicyPeers that may reach the metrics' port (9464; 9465 where that is the "
        "API's), besides the operator; nobody else if empty. If unset those of from, and every pod of the "
        "cluster where podMonitor, autoscaling or inferencePool has somebody read it.",
    )


class EndpointPicker(ApiModel):
    """Service that picks the pod for a request."""

    name: ObjectName = Field(description="Name of the Service.")
    port: int = Field(9002, ge=1, le=65535, description="Port of the Service.")


class InferencePoolSpec(ApiModel):
    """The InferencePool of the Gateway API Inference Extension."""

    endpoint_picker: EndpointPicker = Field(description="Service that picks the pod for a request.")


class NetworkingSpec(ApiModel):
    """Port, timeout and network objects of the API."""

    port: int = Field(8000, ge=1, le=65535, description="Port of the Service and of the pods.")
    request_timeout_seconds: int = Field(
        600,
        ge=1,
        le=86400,
        description="Seconds after which an open request is answered with 504; pods get this long to drain.",
    )
    network_policy: NetworkPolicySpec = Field(
        default_factory=NetworkPolicySpec, description="The NetworkPolicy of the pods."
    )
    inference_pool: InferencePoolSpec | None = Field(
        None, description="Make an InferencePool over the pods; needs its CRD."
    )


class MonitoringSpec(ApiModel):
    """What scrapes the pods."""

    pod_monitor: bool = Field(
        False, description="Make a PodMonitor of the Prometheus operator; needs its CRD."
    )
