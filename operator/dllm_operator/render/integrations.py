"""Children of other projects' kinds: KEDA, Prometheus operator, Gateway API Inference Extension."""

from __future__ import annotations

import re
from typing import Any

from dllm_operator.api.v1alpha1 import AutoscalingSpec, InferencePoolSpec, MetricName
from dllm_operator.cluster.labels import INSTANCE, MANAGED_BY, METRICS_PORT_NAME, POOL, pod_selector
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.plan import PoolPlan
from dllm_operator.render.metadata import manifest

SERIES = {
    MetricName.WAITING: "vllm:num_requests_waiting",
    MetricName.RUNNING: "vllm:num_requests_running",
    MetricName.KV_CACHE_USAGE: "vllm:kv_cache_usage_perc",
}


def scaled_object(resource: Resource, autoscaling: AutoscalingSpec, pool: PoolPlan) -> Manifest:
    """KEDA scales the pool's Deployment on a Prometheus query over its pods."""
    metric = autoscaling.metric
    assert metric is not None and autoscaling.prometheus_address is not None  # noqa: S101 - of KEDA's spec
    series = SERIES[metric.name]
    labels = {"namespace": resource.namespace} | dict(pod_selector(resource.name, pool.name))
    pods = series + "{" + ",".join(f'{series_label(name)}="{value}"' for name, value in labels.items()) + "}"
    # AverageValue divides the sum by the number of pods, so the target is a pod's, for counts and shares
    # alike.
    trigger = {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": autoscaling.prometheus_address,
            "query": f"sum({pods})",
            "threshold": f"{metric.target:.15g}",
            # No series is no load only where somebody scrapes: without them the number of pods stays.
            "ignoreNullValues": "false",
        },
    }
    body = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": pool.deployment},
        "minReplicaCount": autoscaling.min_replicas,
        "maxReplicaCount": autoscaling.max_replicas,
        "triggers": [trigger],
    }
    return manifest("keda.sh/v1alpha1", "ScaledObject", resource, pool.deployment, pool=pool.name, spec=body)


def pod_monitor(resource: Resource) -> Manifest:
    body = {
        "selector": {"matchLabels": pod_selector(resource.name)},
        "podTargetLabels": [INSTANCE, MANAGED_BY, POOL],
        "podMetricsEndpoints": [{"port": METRICS_PORT_NAME, "path": "/metrics"}],
    }
    return manifest("monitoring.coreos.com/v1", "PodMonitor", resource, resource.name, spec=body)


def series_label(name: str) -> str:
    """A label of pods as Prometheus names it on the pods' series."""
    return re.sub("[^a-zA-Z0-9_]", "_", name)


def inference_pool(resource: Resource, port: int, pool: InferencePoolSpec) -> Manifest:
    picker = pool.endpoint_picker
    body: dict[str, Any] = {
        "selector": {"matchLabels": pod_selector(resource.name)},
        "targetPorts": [{"number": port}],
        "endpointPickerRef": {"name": picker.name, "port": {"number": picker.port}},
    }
    return manifest("inference.networking.k8s.io/v1", "InferencePool", resource, resource.name, spec=body)
