"""Children that all pools of a resource share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dllm_operator.api.networking import NetworkPolicyPeer
from dllm_operator.api.v1alpha1 import DLLMDeploymentSpec, ModelCache
from dllm_operator.cluster.labels import (
    API_PORT_NAME,
    OPERATOR_LABELS,
    account_name,
    cache_claim_name,
    door_selector,
    pod_selector,
)
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.render.engine_env import metrics_port
from dllm_operator.render.metadata import manifest

EVERY_POD: Manifest = {"namespaceSelector": {}}


def service(resource: Resource, spec: DLLMDeploymentSpec, *, is_door_open: bool = False) -> Manifest:
    """What clients ask: the pods, or the front door before them."""
    port = {"name": "http", "port": spec.networking.port, "targetPort": API_PORT_NAME, "protocol": "TCP"}
    body = {
        "type": "ClusterIP",
        "selector": door_selector(resource.name) if is_door_open else pod_selector(resource.name),
        "ports": [port | {"appProtocol": "http"}],
    }
    return manifest("v1", "Service", resource, resource.name, spec=body)


def service_account(resource: Resource) -> Manifest:
    """An identity of its own without a token: the pods never talk to the API server."""
    name = account_name(resource.name)
    return manifest("v1", "ServiceAccount", resource, name, automountServiceAccountToken=False)


def disruption_budget(resource: Resource) -> Manifest:
    body = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": pod_selector(resource.name)},
    }
    return manifest("policy/v1", "PodDisruptionBudget", resource, resource.name, spec=body)


def network_policy(
    resource: Resource, spec: DLLMDeploymentSpec, operator_namespace: str, *, is_door_open: bool = False
) -> Manifest:
    """The API's port is open to the peers named, or to the front door alone, the metrics' to their readers;
    to the operator both, since pods of an older version tell their metrics on the API's. A door that is on
    its way out still brings what waited in it."""
    door = {"podSelector": {"matchLabels": door_selector(resource.name)}}
    peers = callers(spec)
    who = [door] if is_door_open else peers and [*peers, door]
    operator = operator_peer(operator_namespace)
    body = {
        "podSelector": {"matchLabels": pod_selector(resource.name)},
        "policyTypes": ["Ingress"],
        "ingress": [
            opened(spec.networking.port, who, operator),
            opened(metrics_port(spec), metrics_readers(spec), operator),
        ],
    }
    return manifest("networking.k8s.io/v1", "NetworkPolicy", resource, resource.name, spec=body)


def operator_peer(namespace: str) -> Manifest:
    """The operator's pods, as a rule of a NetworkPolicy names them."""
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": OPERATOR_LABELS},
    }


def callers(spec: DLLMDeploymentSpec) -> list[Manifest] | None:
    """Who may use the API; None is everybody."""
    return _manifests(spec.networking.network_policy.peers) or None


def metrics_readers(spec: DLLMDeploymentSpec) -> Sequence[Mapping[str, Any]] | None:
    """Who may read them beside the operator; None is everybody. Somebody must where the spec asks for it."""
    policy = spec.networking.network_policy
    if policy.metrics_peers is not None:
        return _manifests(policy.metrics_peers)
    if not policy.peers:
        return None
    are_read = (
        spec.monitoring.pod_monitor
        or (spec.autoscaling is not None and not spec.autoscaling.is_builtin)
        or spec.networking.inference_pool is not None
    )
    return [*_manifests(policy.peers), *([EVERY_POD] if are_read else ())]


def _manifests(peers: Iterable[NetworkPolicyPeer]) -> list[Manifest]:
    return [peer.manifest() for peer in peers]


def opened(port: int, peers: Sequence[Mapping[str, Any]] | None, *others: Manifest) -> Manifest:
    """An ingress rule for peers and ``others``; without peers for everybody."""
    rule: Manifest = {"ports": [{"port": port, "protocol": "TCP"}]}
    return rule if peers is None else rule | {"from": [*peers, *others]}


def cache_claim(resource: Resource, cache: ModelCache) -> Manifest:
    """The claim that holds downloaded weights for all pods."""
    body: dict[str, Any] = {
        "accessModes": [cache.access_mode],
        "resources": {"requests": {"storage": str(cache.size)}},
    }
    if cache.storage_class_name is not None:
        body["storageClassName"] = cache.storage_class_name
    name = cache_claim_name(resource.name)
    return manifest("v1", "PersistentVolumeClaim", resource, name, spec=body)
