"""`spec.auth`, `spec.networking` and `spec.monitoring`: who reaches the pods and how."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from dllm_operator.api.affinity import LabelSelector
from dllm_operator.api.base import ApiModel
from dllm_operator.api.kubernetes_types import KeyName, ObjectName


class ApiKeysSecret(ApiModel):
    """A key of a Secret in the resource's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: KeyName = Field("keys", description="Key whose value holds one bearer key a line.")


class AuthSpec(ApiModel):
    """Who may use the API."""

    api_keys_secret: ApiKeysSecret | None = Field(
        None, description="Bearer keys that the API accepts; everybody who reaches it if unset."
    )


Cidr = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class IpBlock(ApiModel):
    """A range of addresses."""

    cidr: Cidr = Field(description="The range, e.g. 10.0.0.0/8.")
    excluded: tuple[Cidr, ...] | None = Field(
        None, alias="except", max_length=64, description="Ranges inside of it that are left out."
    )


class NetworkPolicyPeer(ApiModel):
    """Who may come: pods, namespaces, or a range of addresses."""

    pod_selector: LabelSelector | None = Field(
        None, description="Pods, of the own namespace or of those that namespaceSelector says."
    )
    namespace_selector: LabelSelector | None = Field(None, description="Namespaces.")
    ip_block: IpBlock | None = Field(None, description="Addresses; excludes the others.")


class NetworkPolicySpec(ApiModel):
    """The NetworkPolicy of the pods."""

    enabled: bool = Field(
        True,
        description="Whether to make a NetworkPolicy that lets nothing in but to the ports of the API and of "
        "the metrics.",
    )
    peers: tuple[NetworkPolicyPeer, ...] = Field(
        default_factory=tuple,
        alias="from",
        max_length=64,
        description="NetworkPolicyPeers (podSelector, namespaceSelector, ipBlock) that may reach the API's "
        "port; everybody if unset.",
    )
    metrics_peers: tuple[NetworkPolicyPeer, ...] | None = Field(
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


class FrontDoor(StrEnum):
    """Whether a proxy with one queue stands before the pods."""

    AUTO = "Auto"
    OFF = "Off"
    ON = "On"


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
    front_door: FrontDoor | None = Field(
        None,
        description="Whether requests go through a proxy that keeps one queue for the pods and gives each no "
        "more than its engine runs at once. Auto: where there may be more than one pod, and neither "
        "inferencePool nor autoscaling by requests that wait. Off if unset.",
    )
    inference_pool: InferencePoolSpec | None = Field(
        None, description="Make an InferencePool over the pods; needs its CRD."
    )


class MonitoringSpec(ApiModel):
    """What scrapes the pods."""

    pod_monitor: bool = Field(
        False, description="Make a PodMonitor of the Prometheus operator; needs its CRD."
    )
