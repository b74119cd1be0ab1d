"""Children that all pools of a resource share."""

from __future__ import annotations

from typing import Any

from dllm_operator.api.v1alpha1 import DLLMDeploymentSpec, ModelCache
from dllm_operator.cluster.labels import account_name, cache_claim_name, pod_selector
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.render.metadata import manifest


def service(resource: Resource, spec: DLLMDeploymentSpec) -> Manifest:
    port = {"name": "http", "port": spec.networking.port, "targetPort": "http", "protocol": "TCP"}
    body = {
        "type": "ClusterIP",
        "selector": pod_selector(resource.name),
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


def network_policy(resource: Resource, spec: DLLMDeploymentSpec, operator_namespace: str) -> Manifest:
    """Only the serving port is open; to everyone, or to the peers named and the operator, which reads
    metrics.
    """
    rule: dict[str, Any] = {"ports": [{"port": spec.networking.port, "protocol": "TCP"}]}
    peers = list(spec.networking.network_policy.peers)
    if peers:
        labels = {"kubernetes.io/metadata.name": operator_namespace}
        rule["from"] = [*peers, {"namespaceSelector": {"matchLabels": labels}}]
    body = {
        "podSelector": {"matchLabels": pod_selector(resource.name)},
        "policyTypes": ["Ingress"],
        "ingress": [rule],
    }
    return manifest("networking.k8s.io/v1", "NetworkPolicy", resource, resource.name, spec=body)


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
