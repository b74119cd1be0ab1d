"""`spec.autoscaling`: how many pods a pool has under load."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from dllm_operator.api.base import ApiModel
from dllm_operator.api.cel import Rule, validations


class MetricName(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    KV_CACHE_USAGE = "kvCacheUsage"


class AutoscalingMetric(ApiModel):
    """What is measured on each pod, and the value to hold."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            Rule(
                rule="self.name != 'kvCacheUsage' || self.target <= 1.0",
                message="target exceeds 1: kvCacheUsage is a share, give a target such as 0.8",
                naming="target {self.target} exceeds 1: kvCacheUsage is a share, give a target such as 0.8",
                field_path=".target",
            )
        )
    )

    name: MetricName = Field(
        MetricName.WAITING,
        description="waiting: requests waiting for admission; running: requests in flight; "
        "kvCacheUsage: share of the KV pool in use.",
    )
    target: float = Field(gt=0, le=1e6, description="Average a pod to hold; above it, pods are added.")


class AutoscalingSpec(ApiModel):
    """Bounds and metric of each pool; needs KEDA and a Prometheus that scrapes the pods."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            Rule(
                rule="self.minReplicas <= self.maxReplicas",
                message="minReplicas exceeds maxReplicas: lower minReplicas or raise maxReplicas",
                naming="minReplicas {self.minReplicas} exceeds maxReplicas {self.maxReplicas}: "
                "lower minReplicas or raise maxReplicas",
                field_path=".minReplicas",
            )
        )
    )

    min_replicas: int = Field(
        1,
        ge=0,
        le=2**31 - 1,
        description="Fewest pods a pool. At 0 the pool's own metrics vanish, so something else must wake it.",
    )
    max_replicas: int = Field(ge=1, le=2**31 - 1, description="Most pods a pool.")
    metric: AutoscalingMetric = Field(description="What is measured on each pod, and the value to hold.")
    prometheus_address: str = Field(
        min_length=1,
        max_length=512,
        description="URL of the Prometheus that scrapes the pods, e.g. http://prometheus.monitoring:9090.",
        json_schema_extra=validations(
            Rule(
                rule="isURL(self) && url(self).getScheme() in ['http', 'https'] "
                "&& url(self).getHostname() != ''",
                message="prometheusAddress is not an http or https URL: "
                "write e.g. http://prometheus.monitoring:9090",
                naming="prometheusAddress '{self}' is not an http or https URL: "
                "write e.g. http://prometheus.monitoring:9090",
            )
        ),
    )
