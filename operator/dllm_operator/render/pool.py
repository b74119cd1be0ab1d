"""Children of one pool: its Deployment and its tuning ConfigMap."""

from __future__ import annotations

import json
from typing import Any

from dllm_operator.api.v1alpha1 import DLLMDeploymentSpec
from dllm_operator.cluster.labels import pod_selector
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.plan import PoolPlan
from dllm_operator.render.engine_env import TUNING_FILE, tuning_document
from dllm_operator.render.metadata import manifest
from dllm_operator.render.pod import PodDefaults, pod_template, tuning_name
from dllm_operator.tuning.pool_start import live_settings

PROGRESS_MARGIN_SECONDS = 300  # scheduling and image pull, before the startup probe counts


def deployment(
    resource: Resource, spec: DLLMDeploymentSpec, pool: PoolPlan, defaults: PodDefaults
) -> Manifest:
    """Without ``replicas`` where an autoscaler owns them."""
    rolling = {"maxSurge": pool.strategy.max_surge, "maxUnavailable": pool.strategy.max_unavailable}
    body: dict[str, Any] = {
        "selector": {"matchLabels": pod_selector(resource.name, pool.name)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        "progressDeadlineSeconds": spec.rollout.progress_deadline_seconds
        or spec.pod_template.startup_timeout_seconds + PROGRESS_MARGIN_SECONDS,
        "revisionHistoryLimit": 3,
        "template": pod_template(resource, spec, pool, defaults),
    }
    if pool.replicas is not None:
        body["replicas"] = pool.replicas
    return manifest("apps/v1", "Deployment", resource, pool.deployment, pool=pool.name, spec=body)


def tuning_config_map(resource: Resource, pool: PoolPlan) -> Manifest:
    tuning = pool.tuning if pool.is_tuned else None
    document = (
        tuning_document(tuning.state.generation, live_settings(tuning)) if tuning else tuning_document()
    )
    content = json.dumps(document, sort_keys=True)
    name = tuning_name(resource.name, pool.name)
    return manifest("v1", "ConfigMap", resource, name, pool=pool.name, data={TUNING_FILE.name: content})
