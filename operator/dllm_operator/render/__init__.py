"""(resource, plan) -> the manifests of every child. Pure."""

from __future__ import annotations

from dllm_operator.api.v1alpha1 import DLLMDeploymentSpec
from dllm_operator.cluster.observe import Integration, Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.plan import Plan
from dllm_operator.render.door import front_door
from dllm_operator.render.integrations import inference_pool, pod_monitor, scaled_object
from dllm_operator.render.pod import PodDefaults
from dllm_operator.render.pool import deployment, tuning_config_map
from dllm_operator.render.shared import (
    cache_claim,
    disruption_budget,
    network_policy,
    service,
    service_account,
)

__all__ = ["PodDefaults", "render"]


def render(
    resource: Resource, spec: DLLMDeploymentSpec, plan: Plan, defaults: PodDefaults
) -> tuple[Manifest, ...]:
    """In the order to apply: what pods refer to comes before the pods."""
    is_open = plan.door is not None and plan.door.is_open
    manifests = [
        service_account(resource),
        service(resource, spec, is_door_open=is_open),
        disruption_budget(resource),
    ]
    if spec.networking.network_policy.enabled:
        manifests.append(network_policy(resource, spec, defaults.operator_namespace, is_door_open=is_open))
    cache = spec.model.cache
    if cache is not None and cache.size is not None:
        manifests.append(cache_claim(resource, cache))
    manifests += [tuning_config_map(resource, pool) for pool in plan.pools]
    manifests += [deployment(resource, spec, pool, defaults) for pool in plan.pools]
    if plan.door is not None:
        manifests += front_door(resource, spec, plan.door, defaults)
    if Integration.SCALED_OBJECT in plan.integrations and spec.autoscaling is not None:
        manifests += [scaled_object(resource, spec.autoscaling, pool) for pool in plan.pools]
    if Integration.POD_MONITOR in plan.integrations:
        manifests.append(pod_monitor(resource))
    if Integration.INFERENCE_POOL in plan.integrations and spec.networking.inference_pool is not None:
        manifests.append(inference_pool(resource, spec.networking.port, spec.networking.inference_pool))
    return tuple(manifests)
