"""Every kind the operator watches or makes."""

from __future__ import annotations

from dllm_operator.api.v1alpha1 import GROUP, KIND, PLURAL, VERSION
from dllm_operator.cluster.kube import Kind
from dllm_operator.cluster.observe import Integration

RESOURCE = Kind(f"{GROUP}/{VERSION}", KIND, PLURAL)
NODE = Kind("v1", "Node", "nodes", is_namespaced=False)
POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
DEFINITION = Kind(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", is_namespaced=False
)

CORE_CHILDREN = (
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("v1", "Service", "services"),
    Kind("v1", "ConfigMap", "configmaps"),
    CLAIM,
    DEPLOYMENT,
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
)
INTEGRATION_CHILDREN = (
    Kind("keda.sh/v1alpha1", Integration.SCALED_OBJECT, "scaledobjects"),
    Kind("monitoring.coreos.com/v1", Integration.POD_MONITOR, "podmonitors"),
    Kind("inference.networking.k8s.io/v1", Integration.INFERENCE_POOL, "inferencepools"),
)
CHILDREN = CORE_CHILDREN + INTEGRATION_CHILDREN
BY_KIND = {kind.kind: kind for kind in CHILDREN}


def definition_name(kind: Kind) -> str:
    """The name of the CRD that defines an integration's kind."""
    return f"{kind.plural}.{kind.api_version.partition('/')[0]}"
