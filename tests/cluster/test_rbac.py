"""What the installed operator may do and what it may not, and what its pods may."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import pytest
import yaml

from tests.cluster.cluster import Cluster, Manifest
from tests.cluster.conftest import RELEASE_NAMESPACE, Images
from tests.cluster.serving import children, make_resource

pytestmark = pytest.mark.cluster

ACCOUNT = f"system:serviceaccount:{RELEASE_NAMESPACE}:dllm-operator"
READ = ("get", "list", "watch")
OWN = (*READ, "create", "patch", "delete")
EVERYTHING = (*OWN, "update", "deletecollection")
EVERYWHERE = ""

Question = tuple[str, str, str]  # namespace (empty: all), verb, resource.group

IN_NAMESPACES = {
    "dllmdeployments.serving.dllm.dev": (*READ, "patch"),
    "dllmdeployments/status.serving.dllm.dev": ("get", "patch", "update"),
    "dllmdeployments/finalizers.serving.dllm.dev": ("update",),
    "services": OWN,
    "serviceaccounts": OWN,
    "configmaps": OWN,
    "persistentvolumeclaims": OWN,
    "pods": READ,
    "events": ("create", "patch"),
    "events.events.k8s.io": ("create", "patch"),
    "deployments.apps": OWN,
    "replicasets.apps": ("get", "list"),
    "poddisruptionbudgets.policy": OWN,
    "networkpolicies.networking.k8s.io": OWN,
    "horizontalpodautoscalers.autoscaling": READ,
    "scaledobjects.keda.sh": OWN,
    "podmonitors.monitoring.coreos.com": OWN,
    "inferencepools.inference.networking.k8s.io": OWN,
}
OUTSIDE_OF_NAMESPACES = {
    "nodes": READ,
    "namespaces": READ,
    "customresourcedefinitions.apiextensions.k8s.io": READ,
    "leases.coordination.k8s.io": ("get",),
}
IN_ITS_OWN_NAMESPACE = {"leases.coordination.k8s.io": (*READ, "create", "update", "patch")}
LEASE_WRITES = {"leases.coordination.k8s.io": ("list", "watch", "create", "update", "patch", "delete")}
PROFILES = {"configmaps": ("get", "create", "patch")}  # of one name, for an operator of some namespaces

FORBIDDEN = {
    "secrets": EVERYTHING,
    "roles.rbac.authorization.k8s.io": EVERYTHING,
    "rolebindings.rbac.authorization.k8s.io": EVERYTHING,
    "clusterroles.rbac.authorization.k8s.io": EVERYTHING,
    "clusterrolebindings.rbac.authorization.k8s.io": EVERYTHING,
    "pods": ("create", "update", "patch", "delete", "deletecollection"),
    "pods/exec": ("create", "get"),
    "pods/attach": ("create", "get"),
    "pods/portforward": ("create", "get"),
    "pods/log": ("get",),
    "pods/ephemeralcontainers": ("patch", "update"),
    "serviceaccounts/token": ("create",),
    "serviceaccounts": ("impersonate",),
    "users": ("impersonate",),
    "nodes": ("create", "update", "patch", "delete", "deletecollection"),
    "nodes/proxy": ("get", "create"),
    "namespaces": ("create", "update", "patch", "delete"),
    "customresourcedefinitions.apiextensions.k8s.io": ("create", "update", "patch", "delete"),
    "validatingwebhookconfigurations.admissionregistration.k8s.io": EVERYTHING,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": EVERYTHING,
    "certificatesigningrequests.certificates.k8s.io": EVERYTHING,
    "dllmdeployments.serving.dllm.dev": ("create", "update", "delete", "deletecollection"),
    "horizontalpodautoscalers.autoscaling": ("create", "update", "patch", "delete"),
    "statefulsets.apps": EVERYTHING,
    "daemonsets.apps": EVERYTHING,
    "jobs.batch": EVERYTHING,
}


def questions(rules: dict[str, tuple[str, ...]], *namespaces: str) -> list[Question]:
    return [
        (namespace, verb, target)
        for namespace in namespaces
        for target, verbs in rules.items()
        for verb in verbs
    ]


def allowed(cluster: Cluster, asked: list[Question]) -> list[Question]:
    """Those of the questions that the API server's authorizer answers with yes for the operator."""
    reviews = []
    for namespace, verb, target in asked:
        name, _, group = target.partition(".")
        resource, _, subresource = name.partition("/")
        attributes = {
            "namespace": namespace,
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
        }
        groups = [
            "system:serviceaccounts",
            f"system:serviceaccounts:{RELEASE_NAMESPACE}",
            "system:authenticated",
        ]
        spec = {"user": ACCOUNT, "groups": groups, "resourceAttributes": attributes}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}}
        reviews.append(body | {"spec": spec})
    output = "--output=jsonpath={.status.allowed}{'\\n'}"
    said = cluster.kubectl("create", "-f", "-", output, stdin=yaml.safe_dump_all(reviews)).split()
    return [question for question, word in zip(asked, said, strict=True) if word == "true"]


def test_the_operator_may_do_what_it_needs(cluster: Cluster, operator: Images) -> None:
    needs = [
        *questions(IN_NAMESPACES, EVERYWHERE),
        *questions(OUTSIDE_OF_NAMESPACES, EVERYWHERE),
        *questions(IN_ITS_OWN_NAMESPACE, RELEASE_NAMESPACE),
    ]

    assert sorted(set(needs) - set(allowed(cluster, needs))) == []


def test_the_operator_may_touch_neither_secrets_nor_what_it_does_not_make(
    cluster: Cluster, operator: Images
) -> None:
    others = [
        *questions(FORBIDDEN, EVERYWHERE, "default", "kube-system", RELEASE_NAMESPACE),
        *questions(LEASE_WRITES, EVERYWHERE, "default", "kube-system"),
    ]

    assert allowed(cluster, others) == []


def test_the_operators_roles_grant_exactly_what_it_needs(cluster: Cluster, operator: Images) -> None:
    (cluster_role,) = bound_roles(cluster, "clusterrolebindings")
    (lease_role,) = bound_roles(cluster, "rolebindings")

    assert granted(cluster.get("clusterrole", cluster_role)) == {
        (verb, target)
        for _, verb, target in (
            *questions(IN_NAMESPACES, EVERYWHERE),
            *questions(OUTSIDE_OF_NAMESPACES, EVERYWHERE),
        )
    }
    assert granted(cluster.get("role", lease_role, RELEASE_NAMESPACE)) == {
        (verb, target) for _, verb, target in questions(IN_ITS_OWN_NAMESPACE | PROFILES, RELEASE_NAMESPACE)
    }


def bound_roles(cluster: Cluster, bindings: str) -> list[str]:
    """Names of the roles that any binding gives to the operator."""
    account = {"kind": "ServiceAccount", "name": "dllm-operator", "namespace": RELEASE_NAMESPACE}
    return [
        binding["roleRef"]["name"]
        for binding in cluster.list(bindings)
        if account in binding.get("subjects", [])
    ]


def granted(role: Manifest | None) -> set[tuple[str, str]]:
    """Every verb with its resource and group."""
    assert role is not None
    return {
        (verb, f"{resource}.{group}" if group else resource)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_every_request_for_a_resource_is_allowed(cluster: Cluster, operator: Images, namespace: str) -> None:
    if cluster.program is None:
        pytest.skip("needs the audit log of a cluster that the program CLUSTER started")
    start = datetime.now(UTC)
    cluster.apply(make_resource("audited"), namespace)
    cluster.wait_for("a pod of the resource", lambda: cluster.list("pods", namespace))
    cluster.kubectl("delete", "dllm", "audited", "-n", namespace)
    cluster.wait_for("no child is left", lambda: not children(cluster, namespace, "audited"))

    # Namespaces of other tests may be ending meanwhile, and refuse whatever is new.
    requests = [r for r in requests_since(cluster, start) if r["objectRef"].get("namespace") == namespace]

    made = {request["objectRef"]["resource"] for request in requests if request["verb"] == "patch"}
    assert {"deployments", "services", "serviceaccounts", "configmaps"} <= made
    assert [
        request for request in requests if request["responseStatus"]["code"] == HTTPStatus.FORBIDDEN
    ] == []
    assert [request for request in requests if request["objectRef"]["resource"] == "secrets"] == []


def requests_since(cluster: Cluster, moment: datetime) -> list[dict[str, Any]]:
    """What the API server logged of the operator's requests."""
    with cluster.audit_log().open() as lines:
        entries = [json.loads(line) for line in lines if ACCOUNT in line]
    return [
        entry
        for entry in entries
        if entry["user"]["username"] == ACCOUNT
        and entry["stage"] == "ResponseComplete"
        and "objectRef" in entry
        and datetime.fromisoformat(entry["requestReceivedTimestamp"]) >= moment
    ]


def test_serving_pods_run_restricted_and_without_a_token(
    cluster: Cluster, operator: Images, namespace: str
) -> None:
    """The namespace enforces the profile, so a pod that breaks it would not exist."""
    cluster.apply(make_resource("plain"), namespace)

    pod, *_ = cluster.wait_for("a pod of the resource", lambda: cluster.list("pods", namespace))

    spec = pod["spec"]
    assert spec["serviceAccountName"] == "plain-dllm"
    assert spec["automountServiceAccountToken"] is False
    assert not [volume for volume in spec["volumes"] if "projected" in volume or "secret" in volume]
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert said_by_pod_security(cluster, namespace) == []


def said_by_pod_security(cluster: Cluster, namespace: str) -> list[str]:
    events: list[Manifest] = cluster.list("events", namespace)
    return [event["message"] for event in events if "PodSecurity" in event.get("message", "")]
