"""`spec.autoscaling`: how many pods a pool has under load."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from dllm_operator.api.base import ApiModel
from dllm_operator.api.cel import Rule, validations

KEDA_FIELDS = ("metric", "prometheusAddress")
BUILTIN_FIELDS = ("stabilizationSeconds", "idleSeconds", "holdSeconds")


class AutoscalingProvider(StrEnum):
    """Who decides how many pods there are."""

    KEDA = "KEDA"
    BUILTIN = "Builtin"


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


def _is_builtin(spec: str) -> str:
    return f"(has({spec}.provider) && {spec}.provider == 'Builtin')"


def _only_with(field: str, *, is_builtin: bool) -> Rule:
    owner, other = ("Builtin", "KEDA") if is_builtin else ("KEDA", "Builtin")
    own = _is_builtin("self") if is_builtin else f"!{_is_builtin('self')}"
    return Rule(
        rule=f"!has(self.{field}) || {own}",
        message=f"{field} is for provider {owner}: remove it, or change provider from {other}",
        field_path=f".{field}",
        reason="FieldValueForbidden",
    )


def _keda_needs(field: str) -> Rule:
    return Rule(
        rule=f"has(self.{field}) || {_is_builtin('self')}",
        message=f"provider KEDA needs {field}: set it, or provider to Builtin",
        field_path=f".{field}",
        reason="FieldValueRequired",
    )


class AutoscalingSpec(ApiModel):
    """Bounds of each pool, and who decides between them."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            Rule(
                rule="self.minReplicas <= self.maxReplicas",
                message="minReplicas exceeds maxReplicas: lower minReplicas or raise maxReplicas",
                naming="minReplicas {self.minReplicas} exceeds maxReplicas {self.maxReplicas}: "
                "lower minReplicas or raise maxReplicas",
                field_path=".minReplicas",
            ),
            *(_keda_needs(field) for field in KEDA_FIELDS),
            *(_only_with(field, is_builtin=False) for field in KEDA_FIELDS),
            *(_only_with(field, is_builtin=True) for field in BUILTIN_FIELDS),
        )
    )

    provider: AutoscalingProvider = Field(
        AutoscalingProvider.KEDA,
        description="KEDA: by metric, as a Prometheus that scrapes the pods has it. Builtin: the operator "
        "itself, by what waits at the front door and runs behind it; pools that cost less for what they hold "
        "come first.",
    )
    min_replicas: int = Field(
        1,
        ge=0,
        le=2**31 - 1,
        description="Fewest pods a pool. At 0 KEDA finds no metric of the pool, so something else must wake "
        "it; Builtin holds requests at the front door until a pod is ready.",
    )
    max_replicas: int = Field(ge=1, le=2**31 - 1, description="Most pods a pool.")
    metric: AutoscalingMetric | None = Field(
        None, description="What KEDA measures on each pod, and the value to hold."
    )
    prometheus_address: str | None = Field(
        None,
        min_length=1,
        max_length=512,
        description="URL of the Prometheus that scrapes the pods, for KEDA, e.g. "
        "http://prometheus.monitoring:9090.",
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
    stabilization_seconds: int | None = Field(
        None,
        ge=1,
        le=86400,
        description="With Builtin, how long a pod has to be without need before it goes; 300 if unset.",
    )
    idle_seconds: int | None = Field(
        None,
        ge=1,
        le=604800,
        description="With Builtin and minReplicas 0, seconds without a request after which all pods go; 300 "
        "if unset.",
    )
    hold_seconds: int | None = Field(
        None,
        ge=0,
        le=86400,
        description="With Builtin, how long a request waits at the front door for a first pod before it gets "
        "503; at 0 at once. As long as networking.requestTimeoutSeconds if unset.",
    )

    @property
    def is_builtin(self) -> bool:
        return self.provider is AutoscalingProvider.BUILTIN

    @property
    def counts_waiting(self) -> bool:
        """By a number of the pods that a front door keeps at nothing."""
        return self.metric is not None and self.metric.name is MetricName.WAITING
