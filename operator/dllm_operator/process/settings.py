"""The operator's own settings: flags over ``DLLM_OPERATOR_...`` environment over defaults."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

from dllm_server.settings import LogSettings
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dllm_operator.api.v1alpha1 import ImagePullPolicy

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def pod_namespace() -> str:
    """The namespace this process runs in; `default` outside a cluster."""
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.exists() else "default"


class OperatorSettings(BaseSettings, LogSettings):
    """Everything `dllm-operator run` can be told."""

    model_config = SettingsConfigDict(env_prefix="DLLM_OPERATOR_", extra="forbid", frozen=True)

    server_image: str = Field(
        min_length=1, description="Image of the serving pods where a resource names none."
    )
    namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Namespaces to watch, comma-separated; all if empty."
    )
    front_door_image: str = Field(
        "docker.io/library/haproxy:3.2-alpine",
        min_length=1,
        description="Image of the front doors: HAProxy 2.6 or newer, whose stop signal is SIGUSR1.",
    )
    cluster_domain: str = Field(
        "cluster.local",
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description="Domain of the cluster's DNS.",
    )
    image_pull_policy: ImagePullPolicy = Field(
        ImagePullPolicy.IF_NOT_PRESENT, description="Of the serving pods."
    )
    lease_name: str = Field("dllm-operator", description="Lease that the leader holds.")
    lease_namespace: str = Field(default_factory=pod_namespace, description="Namespace of the Lease.")
    takeover_seconds: float = Field(
        120.0,
        ge=0,
        description="Resources of another operator are taken over when its Lease has ended for this long.",
    )
    identity: str = Field(default_factory=socket.gethostname, description="Name in the Lease and in Events.")
    profiles_name: str = Field(
        "dllm-operator-profiles",
        description="ConfigMap in the Lease's namespace that keeps what tuning has learned by GPU type.",
    )
    prometheus_url: str | None = Field(
        None,
        pattern="^https?://",
        description="Prometheus server to read the serving pods' series from; the pods themselves if unset.",
    )
    http_port: int = Field(8080, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics.")
    resync_seconds: float = Field(
        600.0, ge=1, description="Every resource is looked at again after this time."
    )
    audit_seconds: float = Field(
        30.0, ge=1, description="Time between two comparisons of the watches with the API server."
    )
    max_rolling_pools: int = Field(
        2,
        ge=1,
        le=10_000,
        description="Pools that roll out at once though nobody edited their resource: for another default "
        "image, another version, a restart by the tuner.",
    )
    workers: int = Field(
        8, ge=1, le=64, description="Resources reconciled at once, half of them of one namespace at most."
    )

    @property
    def manager(self) -> str:
        """The Lease, as the status of resources names their operator."""
        return f"{self.lease_namespace}/{self.lease_name}"

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )
