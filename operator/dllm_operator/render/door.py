"""The front door of a resource: two of HAProxy, one with the queue and one that stands in for it, and the
names by which they find the pods and each other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from dllm_operator.api.v1alpha1 import DLLMDeploymentSpec
from dllm_operator.cluster.labels import (
    API_PORT_NAME,
    COMPONENT,
    DOOR,
    METRICS_PORT_NAME,
    account_name,
    door_name,
    door_names,
    door_selector,
    engines_name,
    pod_selector,
)
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.door import DoorPlan
from dllm_operator.render.door_config import MARGIN_SECONDS, Door, DoorPool, Hold, door_config, hold_script
from dllm_operator.render.metadata import manifest
from dllm_operator.render.pod import EXIT_SECONDS, SETTLE_SECONDS, USER_ID, PodDefaults, lost_node_tolerations
from dllm_operator.render.shared import callers, metrics_readers, opened, operator_peer

PORT, ADMIN_PORT = 8080, 9464  # of the door's pods
QUEUE = 256  # requests that may wait in one replica
FEWEST_SLOTS = 32
FIRST_CONFIG, SECOND_CONFIG = "first.cfg", "second.cfg"
DOOR_SLOTS = 2  # old and new one of a rollout
FIRST = "first"  # its name where the second one counts what it has sent to it
NUMBER = "serving.dllm.dev/front-door"
CONFIG_PATH = "/usr/local/etc/haproxy"
HOLD_FILE = "hold.lua"
CONFIG_DIGEST = "serving.dllm.dev/front-door-config"  # of a template: another configuration takes other pods
RESOURCES = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


def front_door(
    resource: Resource, spec: DLLMDeploymentSpec, door: DoorPlan, defaults: PodDefaults
) -> list[Manifest]:
    """In the order to apply."""
    described = _door(resource, spec, door, defaults.cluster_domain)
    first, _ = door_names(resource.name)
    address = f"{first}.{resource.namespace}.svc.{defaults.cluster_domain}"
    place = DoorPool(FIRST, address, PORT, 0, DOOR_SLOTS)
    configs = {
        FIRST_CONFIG: door_config(described),
        SECOND_CONFIG: door_config(replace(described, first=place)),
    }
    files = dict(configs)
    if described.hold is not None:
        files[HOLD_FILE] = hold_script(described.hold)
    found = [_engines(resource, spec, pool) for pool in door.limits]
    found.append(_labelled(manifest("v1", "ConfigMap", resource, door.name, data=files)))
    found.append(_budget(resource, door))
    if spec.networking.network_policy.enabled:
        found.append(_policy(resource, spec, door, defaults.operator_namespace))
    found.append(_first_service(resource, first))
    return found + [
        _deployment(resource, spec, number, defaults, config, files)
        for number, config in enumerate(configs, 1)
    ]


def _door(resource: Resource, spec: DLLMDeploymentSpec, door: DoorPlan, cluster_domain: str) -> Door:
    pools = [
        DoorPool(
            name=pool,
            address=f"{engines_name(resource.name, pool)}.{resource.namespace}.svc.{cluster_domain}",
            port=spec.networking.port,
            limit=limit,
            slots=max(FEWEST_SLOTS, 2 * door.most_pods[pool]),  # old and new ones of a rollout
        )
        for pool, limit in door.limits.items()
    ]
    hold = None
    if door.hold_seconds:
        hold = Hold(f"{CONFIG_PATH}/{HOLD_FILE}", QUEUE, door.hold_seconds)
    return Door(PORT, ADMIN_PORT, QUEUE, spec.networking.request_timeout_seconds, pools, hold=hold)


def _engines(resource: Resource, spec: DLLMDeploymentSpec, pool: str) -> Manifest:
    body = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,  # the door's own checks tell who is ready, sooner than names do
        "selector": pod_selector(resource.name, pool),
        "ports": [
            {"name": "http", "port": spec.networking.port, "targetPort": API_PORT_NAME, "protocol": "TCP"}
        ],
    }
    return manifest("v1", "Service", resource, engines_name(resource.name, pool), pool=pool, spec=body)


def _budget(resource: Resource, door: DoorPlan) -> Manifest:
    body = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": door_selector(resource.name)},
    }
    return _labelled(manifest("policy/v1", "PodDisruptionBudget", resource, door.name, spec=body))


def _policy(
    resource: Resource, spec: DLLMDeploymentSpec, door: DoorPlan, operator_namespace: str
) -> Manifest:
    doors = {"podSelector": {"matchLabels": door_selector(resource.name)}}
    others = (operator_peer(operator_namespace), doors)  # the second asks the first, and whether it is there
    body = doors | {
        "policyTypes": ["Ingress"],
        "ingress": [
            opened(PORT, callers(spec), *others),
            opened(ADMIN_PORT, metrics_readers(spec), *others),
        ],
    }
    return _labelled(manifest("networking.k8s.io/v1", "NetworkPolicy", resource, door.name, spec=body))


def _deployment(
    resource: Resource,
    spec: DLLMDeploymentSpec,
    number: int,
    defaults: PodDefaults,
    config: str,
    files: Mapping[str, str],
) -> Manifest:
    selector, content = _numbered(resource, number), "\0".join(files.values())
    body = {
        "replicas": 1,
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "revisionHistoryLimit": 3,
        "template": {
            "metadata": {
                "labels": selector,
                "annotations": {CONFIG_DIGEST: hashlib.sha256(content.encode()).hexdigest()[:16]},
            },
            "spec": _pod(resource, spec, defaults, config),
        },
    }
    name = door_names(resource.name)[number - 1]
    return _labelled(manifest("apps/v1", "Deployment", resource, name, spec=body))


def _numbered(resource: Resource, number: int) -> dict[str, str]:
    """Labels of the pods of one of the Deployments."""
    return {**door_selector(resource.name), NUMBER: str(number)}


def _first_service(resource: Resource, first: str) -> Manifest:
    """By which the second door finds the first."""
    body = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": _numbered(resource, 1),
        "ports": [{"name": "http", "port": PORT, "targetPort": API_PORT_NAME, "protocol": "TCP"}],
    }
    return _labelled(manifest("v1", "Service", resource, first, spec=body))


def _pod(resource: Resource, spec: DLLMDeploymentSpec, defaults: PodDefaults, config: str) -> Manifest:
    apart = {
        "weight": 100,
        "podAffinityTerm": {
            "labelSelector": {"matchLabels": door_selector(resource.name)},
            "topologyKey": "kubernetes.io/hostname",
        },
    }
    return {
        "serviceAccountName": account_name(resource.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": SETTLE_SECONDS
        + spec.networking.request_timeout_seconds
        + MARGIN_SECONDS
        + EXIT_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [apart]}},
        "tolerations": lost_node_tolerations(),
        "containers": [_container(spec, defaults, config)],
        "volumes": [{"name": "config", "configMap": {"name": door_name(resource.name)}}],
        "imagePullSecrets": [{"name": secret.name} for secret in spec.pod_template.image_pull_secrets],
    }


def _container(spec: DLLMDeploymentSpec, defaults: PodDefaults, config: str) -> Manifest:
    probe = {"httpGet": {"path": "/healthz", "port": METRICS_PORT_NAME}, "timeoutSeconds": 5}
    return {
        "name": DOOR,
        "image": defaults.front_door_image,
        "imagePullPolicy": spec.pod_template.image_pull_policy or defaults.image_pull_policy,
        "command": ["haproxy", "-db", "-f", f"{CONFIG_PATH}/{config}"],
        "ports": [
            {"name": API_PORT_NAME, "containerPort": PORT, "protocol": "TCP"},
            {"name": METRICS_PORT_NAME, "containerPort": ADMIN_PORT, "protocol": "TCP"},
        ],
        "resources": RESOURCES,
        # By then the first checks have told which pods are ready.
        "readinessProbe": probe | {"initialDelaySeconds": 3, "periodSeconds": 2, "failureThreshold": 2},
        "livenessProbe": probe | {"initialDelaySeconds": 10, "periodSeconds": 10, "failureThreshold": 3},
        # Then the image's stop signal, SIGUSR1: no new connection, and an end when the last answer is given.
        "lifecycle": {"preStop": {"sleep": {"seconds": SETTLE_SECONDS}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "config", "mountPath": CONFIG_PATH, "readOnly": True}],
    }


def _labelled(child: Manifest) -> Manifest:
    metadata = child["metadata"]
    return child | {"metadata": metadata | {"labels": metadata["labels"] | {COMPONENT: DOOR}}}
