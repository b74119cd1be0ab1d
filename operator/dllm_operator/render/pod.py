"""The pod of a pool: the server image under the restricted profile."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import Any

from dllm_operator.api.affinity import Affinity
from dllm_operator.api.v1alpha1 import (
    DLLMDeploymentSpec,
    EmbeddedSource,
    HubSource,
    ImagePullPolicy,
    ModelSource,
    PvcSource,
)
from dllm_operator.cluster.labels import (
    API_PORT_NAME,
    ENGINE_TYPE,
    KEYS_VOLUME,
    METRICS_PORT_NAME,
    TUNING_RESTART,
    account_name,
    cache_claim_name,
    child_labels,
    child_name,
    pod_selector,
)
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.plan import PoolPlan
from dllm_operator.render.engine_env import (
    CACHE,
    KEYS_FILE,
    LEAVE_SECONDS,
    MODELS,
    TUNING_FILE,
    api_keys_secret,
    engine_env,
    metrics_port,
)

CONTAINER = "engine"
USER_ID = 65532
SETTLE_SECONDS = 5  # endpoints stop routing to a terminating pod
EXIT_SECONDS = 15  # beyond the drain: last answers, the engine process, the container
PROBE_SECONDS = 5
LOST_NODE_SECONDS = 60  # a pod on a silent node is replaced after this


@dataclass(frozen=True, slots=True)
class PodDefaults:
    """The operator's own settings that pods take where the resource says nothing."""

    image: str
    image_pull_policy: ImagePullPolicy = ImagePullPolicy.IF_NOT_PRESENT
    operator_namespace: str = "dllm-system"
    front_door_image: str = "docker.io/library/haproxy:3.2-alpine"
    cluster_domain: str = "cluster.local"


def pod_template(
    resource: Resource, spec: DLLMDeploymentSpec, pool: PoolPlan, defaults: PodDefaults
) -> Manifest:
    template = spec.pod_template
    pod: dict[str, Any] = {
        "serviceAccountName": account_name(resource.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": SETTLE_SECONDS
        + LEAVE_SECONDS
        + math.ceil(spec.networking.request_timeout_seconds)
        + EXIT_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
        },
        "containers": [_container(spec, pool, defaults)],
        "volumes": _volumes(resource, spec, pool),
        "tolerations": [*pool.tolerations, *lost_node_tolerations()],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": pod_selector(resource.name, pool.name)},
            }
        ],
    }
    optional = {
        "nodeSelector": dict(pool.node_selector),
        "affinity": _affinity(resource, template.affinity, pool),
        "resourceClaims": [claim.manifest() for claim in template.resource_claims],
        "priorityClassName": template.priority_class_name,
        "runtimeClassName": template.runtime_class_name,
        "imagePullSecrets": [{"name": secret.name} for secret in template.image_pull_secrets],
    }
    pod |= {name: value for name, value in optional.items() if value}
    labels = dict(template.labels) | child_labels(resource.name, pool.name) | {ENGINE_TYPE: "vllm"}
    metadata: dict[str, Any] = {"labels": labels}
    annotations = dict(template.annotations) | _restart_annotation(pool)
    if annotations:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": pod}


def _affinity(resource: Resource, authors: Affinity | None, pool: PoolPlan) -> dict[str, Any]:
    """The author's; pods that share a volume of one node also stay together."""
    own = authors.manifest() if authors is not None else {}
    if not pool.is_on_one_node:
        return own
    field = "requiredDuringSchedulingIgnoredDuringExecution"
    together = {
        "labelSelector": {"matchLabels": pod_selector(resource.name, pool.name)},
        "topologyKey": "kubernetes.io/hostname",
    }
    to_pods = dict(own.get("podAffinity") or {})
    return {**own, "podAffinity": {**to_pods, field: [*(to_pods.get(field) or ()), together]}}


def _restart_annotation(pool: PoolPlan) -> dict[str, str]:
    """What makes a rolling restart of a tuned pool, also where its settings stay."""
    if pool.tuning is None or not pool.is_tuned or pool.tuning.state.restart_generation == 0:
        return {}
    return {TUNING_RESTART: str(pool.tuning.state.restart_generation)}


def _container(spec: DLLMDeploymentSpec, pool: PoolPlan, defaults: PodDefaults) -> Manifest:
    template = spec.pod_template
    resources = {name: copy(value) for name, value in pool.resources.items() if value}
    if pool.gpu_resource is not None:
        resources.setdefault("limits", {})[pool.gpu_resource] = str(pool.gpus_per_replica)
    return {
        "name": CONTAINER,
        "image": spec.image or defaults.image,
        "imagePullPolicy": template.image_pull_policy or defaults.image_pull_policy,
        "args": ["serve"],
        "env": engine_env(spec, pool),
        "ports": [
            {"name": API_PORT_NAME, "containerPort": spec.networking.port, "protocol": "TCP"},
            {"name": METRICS_PORT_NAME, "containerPort": metrics_port(spec), "protocol": "TCP"},
        ],
        "resources": resources,
        # Nothing listens before the model is loaded, so loading fails this probe and no other one runs.
        "startupProbe": _probe(
            "/health",
            failureThreshold=math.ceil(template.startup_timeout_seconds / PROBE_SECONDS),
            terminationGracePeriodSeconds=EXIT_SECONDS,  # it has no request to finish
        ),
        "readinessProbe": _probe("/ready", failureThreshold=2),
        "livenessProbe": _probe("/health", failureThreshold=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": SETTLE_SECONDS}}},
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": template.read_only_root_filesystem,
        },
        "volumeMounts": _mounts(spec),
    }


def _probe(path: str, **thresholds: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": API_PORT_NAME},
        "periodSeconds": PROBE_SECONDS,
        "timeoutSeconds": PROBE_SECONDS,
        **thresholds,
    }


def _volumes(resource: Resource, spec: DLLMDeploymentSpec, pool: PoolPlan) -> list[Manifest]:
    volumes: list[Manifest] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "cache", **_cache_source(resource, spec)},
        {"name": "tuning", "configMap": {"name": tuning_name(resource.name, pool.name)}},
    ]
    source = ModelSource.parse(spec.model.source)
    if isinstance(source, PvcSource):
        claim = {"claimName": source.claim, "readOnly": True}
        volumes.append({"name": "model", "persistentVolumeClaim": claim})
    keys = api_keys_secret(spec)
    if keys is not None:
        items = [{"key": keys.key, "path": KEYS_FILE.name}]
        volumes.append({"name": KEYS_VOLUME, "secret": {"secretName": keys.name, "items": items}})
    return volumes


def _cache_source(resource: Resource, spec: DLLMDeploymentSpec) -> Manifest:
    cache = spec.model.cache
    if cache is None:
        return {"emptyDir": {}}
    return {"persistentVolumeClaim": {"claimName": cache.claim_name or cache_claim_name(resource.name)}}


def _mounts(spec: DLLMDeploymentSpec) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
        {"name": "cache", "mountPath": str(CACHE)},
        {"name": "tuning", "mountPath": str(TUNING_FILE.parent), "readOnly": True},
    ]
    match ModelSource.parse(spec.model.source):
        case PvcSource():
            mounts.append({"name": "model", "mountPath": str(MODELS), "readOnly": True})
        case EmbeddedSource() | HubSource():
            pass
    if api_keys_secret(spec) is not None:
        mounts.append({"name": KEYS_VOLUME, "mountPath": str(KEYS_FILE.parent), "readOnly": True})
    return mounts


def lost_node_tolerations() -> list[Manifest]:
    return [
        {
            "key": f"node.kubernetes.io/{state}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": LOST_NODE_SECONDS,
        }
        for state in ("not-ready", "unreachable")
    ]


def tuning_name(resource_name: str, pool: str) -> str:
    return child_name(resource_name, pool, "tuning")
