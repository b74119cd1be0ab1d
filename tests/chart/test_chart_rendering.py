"""What the chart makes of its values, as helm renders it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from conftest import Tools

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "dllm-operator"
Manifest = dict[str, Any]
READ = ["get", "list", "watch"]
OWN = [*READ, "create", "patch", "delete"]
OPERATOR_MAY = {
    ("serving.dllm.dev", "dllmdeployments"): [*READ, "patch"],
    ("serving.dllm.dev", "dllmdeployments/status"): ["get", "patch", "update"],
    ("serving.dllm.dev", "dllmdeployments/finalizers"): ["update"],
    ("", "services"): OWN,
    ("", "serviceaccounts"): OWN,
    ("", "configmaps"): OWN,
    ("", "persistentvolumeclaims"): OWN,
    ("", "pods"): READ,
    ("", "events"): ["create", "patch"],
    ("events.k8s.io", "events"): ["create", "patch"],
    ("apps", "deployments"): OWN,
    ("apps", "replicasets"): ["get", "list"],
    ("policy", "poddisruptionbudgets"): OWN,
    ("networking.k8s.io", "networkpolicies"): OWN,
    ("autoscaling", "horizontalpodautoscalers"): READ,
    ("keda.sh", "scaledobjects"): OWN,
    ("monitoring.coreos.com", "podmonitors"): OWN,
    ("inference.networking.k8s.io", "inferencepools"): OWN,
}
CLUSTER_FACTS = {
    ("", "nodes"): READ,
    ("", "namespaces"): READ,
    ("apiextensions.k8s.io", "customresourcedefinitions"): READ,
    ("coordination.k8s.io", "leases"): ["get"],
}
IN_ITS_OWN_NAMESPACE = {
    ("coordination.k8s.io", "leases"): ["get", "create", "update", "patch", "list", "watch"],
    ("", "configmaps"): ["get", "create", "patch"],
}


def of_kind(manifests: Iterable[Manifest], kind: str, hooks: bool = False) -> list[Manifest]:
    return [
        one
        for one in manifests
        if one["kind"] == kind and hooks == ("helm.sh/hook" in one["metadata"].get("annotations", {}))
    ]


def permissions(role: Manifest) -> dict[tuple[str, str], list[str]]:
    return {
        (group, resource): rule["verbs"]
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def operator_container(manifests: Iterable[Manifest]) -> Manifest:
    (deployment,) = of_kind(manifests, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


def environment(container: Manifest) -> dict[str, str | None]:
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def test_the_chart_passes_the_strict_linter(tools: Tools, values: dict[str, Any]) -> None:
    tools.check("helm", "lint", "--strict", str(CHART), "--values", "-", stdin=yaml.safe_dump(values))


def test_no_object_is_rendered_twice(tools: Tools, values: dict[str, Any]) -> None:
    manifests = tools.render(values)

    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in manifests]

    assert len(names) == len(set(names))


def test_no_role_has_wildcards_versions_or_secrets(tools: Tools, values: dict[str, Any]) -> None:
    manifests = tools.render(values)

    roles = [one for one in manifests if one["kind"] in ("Role", "ClusterRole")]
    words = {word for role in roles for rule in role["rules"] for part in rule.values() for word in part}

    assert not {word for word in words if "*" in word or word.startswith("secrets") or "/v1" in word}


def test_the_operator_of_the_whole_cluster_may_do_what_it_needs_and_no_more(tools: Tools) -> None:
    manifests = tools.render({})

    (binding,) = of_kind(manifests, "ClusterRoleBinding")
    (role,) = [one for one in manifests if one["metadata"]["name"] == binding["roleRef"]["name"]][:1]
    (lease_role,) = of_kind(manifests, "Role")

    assert permissions(role) == CLUSTER_FACTS | OPERATOR_MAY
    assert permissions(lease_role) == IN_ITS_OWN_NAMESPACE
    assert [rule.get("resourceNames") for rule in lease_role["rules"]] == [None, ["dllm-operator-profiles"]]
    assert lease_role["metadata"]["namespace"] == "dllm-system"


def test_the_operator_of_some_namespaces_may_act_only_there(tools: Tools) -> None:
    manifests = tools.render({"watchNamespaces": ["red", "blue"]})

    (binding,) = of_kind(manifests, "ClusterRoleBinding")
    cluster_roles = {one["metadata"]["name"]: one for one in of_kind(manifests, "ClusterRole")}
    roles = {one["metadata"]["namespace"]: permissions(one) for one in of_kind(manifests, "Role")}
    bound = {one["metadata"]["namespace"] for one in of_kind(manifests, "RoleBinding")}

    assert permissions(cluster_roles[binding["roleRef"]["name"]]) == CLUSTER_FACTS
    assert roles == {"dllm-system": IN_ITS_OWN_NAMESPACE, "red": OPERATOR_MAY, "blue": OPERATOR_MAY}
    assert bound == {"dllm-system", "red", "blue"}
    assert environment(operator_container(manifests))["DLLM_OPERATOR_NAMESPACES"] == "red,blue"


def test_users_roles_join_view_edit_and_admin(tools: Tools) -> None:
    manifests = tools.render({})

    joined = {
        one["metadata"]["name"].rsplit(":", 1)[-1]: sorted(
            label.rsplit("-", 1)[-1] for label in one["metadata"]["labels"] if "aggregate-to" in label
        )
        for one in of_kind(manifests, "ClusterRole")
    }

    assert joined["view"] == ["admin", "edit", "view"]
    assert joined["edit"] == ["admin", "edit"]


def test_two_releases_share_no_object(tools: Tools) -> None:
    def names(namespace: str) -> set[tuple[str, str, str]]:
        rendered = tools.render({"crds": {"enabled": False}}, namespace)
        return {
            (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in rendered
        }

    assert not names("team-red") & names("team-blue")


def test_the_crd_is_the_generated_one_and_kept(tools: Tools) -> None:
    (crd,) = of_kind(tools.render({}), "CustomResourceDefinition")

    assert crd["spec"] == yaml.safe_load((CHART / "files" / "crd.yaml").read_text())["spec"]
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_crd_goes_with_the_release_if_it_is_not_to_be_kept(tools: Tools) -> None:
    (crd,) = of_kind(tools.render({"crds": {"keep": False}}), "CustomResourceDefinition")

    assert "helm.sh/resource-policy" not in (crd["metadata"].get("annotations") or {})


def test_the_crd_can_be_left_to_somebody_else(tools: Tools) -> None:
    assert of_kind(tools.render({"crds": {"enabled": False}}), "CustomResourceDefinition") == []


@pytest.mark.parametrize(("replicas", "budgets"), [(0, 0), (1, 0), (2, 1)])
def test_a_disruption_budget_needs_a_second_replica(tools: Tools, replicas: int, budgets: int) -> None:
    manifests = tools.render({"operator": {"replicas": replicas}})

    assert len(of_kind(manifests, "PodDisruptionBudget")) == budgets


def test_an_image_is_one_reference_with_registry_tag_or_digest(tools: Tools) -> None:
    pinned = f"registry.example:5000/a/b@sha256:{'0f' * 32}"
    images = {"operator": {"image": pinned}, "server": {"image": "c/d:e"}}

    manifests = tools.render(images)

    (test_pod,) = of_kind(manifests, "Pod", hooks=True)
    assert operator_container(manifests)["image"] == pinned
    assert environment(operator_container(manifests))["DLLM_OPERATOR_SERVER_IMAGE"] == "c/d:e"
    assert test_pod["spec"]["containers"][0]["image"] == "c/d:e"


def test_images_that_are_not_named_have_the_version_of_the_app(tools: Tools) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]

    container = operator_container(tools.render({}))

    assert container["image"] == f"docker.io/dllmserve/dllm-operator:{version}"
    assert (
        environment(container)["DLLM_OPERATOR_SERVER_IMAGE"] == f"docker.io/dllmserve/dllm-server:{version}"
    )


def test_the_test_is_made_of_hooks_and_leaves_only_the_pod_with_its_log(tools: Tools) -> None:
    hooks = [one for one in tools.render({}) if one["metadata"]["name"].endswith("-test")]

    policies = {one["kind"]: one["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for one in hooks}

    removed = dict.fromkeys(
        ("ServiceAccount", "Role", "RoleBinding", "ConfigMap"), "before-hook-creation,hook-succeeded"
    )
    assert policies == removed | {"Pod": "before-hook-creation"}


def test_the_test_carries_the_script_unchanged(tools: Tools) -> None:
    (script,) = of_kind(tools.render({}), "ConfigMap", hooks=True)

    assert script["data"]["ask.py"].strip() == (CHART / "files" / "ask.py").read_text().strip()


@pytest.mark.parametrize(
    ("watched", "namespace"), [([], "dllm-system"), (["a", "dllm-system"], "dllm-system"), (["a", "b"], "a")]
)
def test_the_test_uses_a_namespace_that_the_operator_watches(
    tools: Tools, watched: list[str], namespace: str
) -> None:
    manifests = tools.render({"watchNamespaces": watched})

    (pod,) = of_kind(manifests, "Pod", hooks=True)
    (role,) = of_kind(manifests, "Role", hooks=True)
    assert environment(pod["spec"]["containers"][0])["TEST_NAMESPACE"] == namespace
    assert role["metadata"]["namespace"] == namespace


def test_nobody_gets_alerts_or_dashboards_unasked(tools: Tools) -> None:
    manifests = tools.render({})

    assert of_kind(manifests, "PrometheusRule") == of_kind(manifests, "PodMonitor") == []
    assert of_kind(manifests, "ConfigMap") == []


def test_alerts_are_the_generated_ones_and_lead_to_the_runbook(tools: Tools) -> None:
    values = {"enabled": True, "labels": {"release": "x"}, "runbookUrl": "https://wiki.example/runbook"}

    (rule,) = of_kind(tools.render({"prometheusRule": values}), "PrometheusRule")

    generated = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    groups = rule["spec"]["groups"]
    links = [each["annotations"].pop("runbook_url") for group in groups for each in group["rules"]]
    wanted = [
        each["annotations"].pop("runbook_url") for group in generated["groups"] for each in group["rules"]
    ]
    assert groups == generated["groups"]
    assert links == [link.replace("RUNBOOK_URL", "https://wiki.example/runbook") for link in wanted]
    assert rule["metadata"]["labels"]["release"] == "x"


def test_dashboards_are_the_generated_ones_where_grafanas_sidecar_finds_them(tools: Tools) -> None:
    values = {"enabled": True, "annotations": {"grafana_folder": "Models"}}

    maps = of_kind(tools.render({"dashboards": values}), "ConfigMap")

    files = sorted((CHART / "files" / "dashboards").iterdir())
    assert [one["metadata"]["labels"]["grafana_dashboard"] for one in maps] == ["1"] * len(files)
    assert [one["metadata"]["annotations"] for one in maps] == [{"grafana_folder": "Models"}] * len(files)
    shown = {name: json.loads(text) for one in maps for name, text in one["data"].items()}
    assert shown == {f"dllm-{file.name}": json.loads(file.read_text()) for file in files}


def test_reconciles_are_traced_where_a_collector_is_named(tools: Tools) -> None:
    name, address = "OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.observability:4318"

    traced = environment(operator_container(tools.render({"tracing": {"endpoint": address}})))

    assert traced[name] == address
    assert name not in environment(operator_container(tools.render({})))


def test_the_operators_series_keep_the_labels_of_the_resources_they_are_about(tools: Tools) -> None:
    """Else the PodMonitor's own ``namespace``, the operator's, takes the place of the resource's."""
    (monitor,) = of_kind(tools.render({"metrics": {"podMonitor": {"enabled": True}}}), "PodMonitor")

    assert [one["honorLabels"] for one in monitor["spec"]["podMetricsEndpoints"]] == [True]


POLICY = "ValidatingAdmissionPolicy"
LIMITS = {
    "images": {"allowedImages": ["docker.io/dllmserve/"]},
    "model-sources": {"allowedModelSources": ["embedded"]},
    "gpus": {"maxGpusPerNamespace": 0},
}


def test_nothing_is_limited_unless_values_say_so(tools: Tools) -> None:
    assert {one["kind"] for one in tools.render({})} & {POLICY, f"{POLICY}Binding", "ResourceQuota"} == set()


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_is_a_policy_that_fails_closed_and_its_binding(tools: Tools, limit: str) -> None:
    manifests = tools.render({"policies": LIMITS[limit]})

    policies, bindings = of_kind(manifests, POLICY), of_kind(manifests, f"{POLICY}Binding")
    names = [
        f"dllm-system.dllm-operator.{name}" for name in ((limit, "scale") if limit == "gpus" else (limit,))
    ]
    assert sorted(one["metadata"]["name"] for one in policies) == names
    assert [one["spec"]["failurePolicy"] for one in policies] == ["Fail"] * len(names)
    assert sorted(one["spec"]["policyName"] for one in bindings) == names
    assert [one["spec"] for one in bindings if one["spec"]["validationActions"] != ["Deny"]] == []
    assert [one["spec"].get("matchResources") for one in bindings] == [None] * len(names)


def test_limits_hold_in_the_watched_namespaces_and_their_gpus_are_a_quota(tools: Tools) -> None:
    manifests = tools.render({"watchNamespaces": ["red", "blue"], "policies": {"maxGpusPerNamespace": 8}})

    for binding in of_kind(manifests, f"{POLICY}Binding"):
        [where] = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
        assert (where["key"], where["operator"]) == ("kubernetes.io/metadata.name", "In")
        assert where["values"] == ["red", "blue"]
    quotas = {
        one["metadata"]["namespace"]: one["spec"]["hard"] for one in of_kind(manifests, "ResourceQuota")
    }
    assert quotas == {namespace: {"requests.nvidia.com/gpu": "8"} for namespace in ("red", "blue")}


@pytest.mark.parametrize(
    ("image", "prefix", "is_allowed"),
    [
        ("a.example/team/server:1", "a.example/team/", True),
        ("a.example/team/server:1", "a.example/team/server", True),
        (f"a.example/team/server@sha256:{'0f' * 32}", "a.example/team/server", True),
        ("a.example/team/server:1", "a.example/team/server:1", True),
        ("a.example/team/server:1", "a.example/team", False),
        ("a.example/team-evil/server:1", "a.example/team/", False),
        ("a.example/team/server-evil:1", "a.example/team/server", False),
        ("a.example:5000/server", "a.example", False),
    ],
)
def test_the_default_image_must_be_among_the_allowed(
    tools: Tools, image: str, prefix: str, is_allowed: bool
) -> None:
    values = {"server": {"image": image}, "policies": {"allowedImages": ["b.example/", prefix]}}

    done = tools.run("helm", "template", "dllm", str(CHART), "--values", "-", stdin=yaml.safe_dump(values))

    assert (done.returncode == 0) is is_allowed, done.stderr
    assert is_allowed or f"server.image {image} is not among policies.allowedImages" in done.stderr


def test_the_notes_begin_with_the_resource_of_the_smallest_example(tools: Tools) -> None:
    """Whose limits the tests on a cluster hold it to."""
    notes = tools.check(
        "helm", "install", "dllm", str(CHART), "--namespace", "dllm-system", "--dry-run=client"
    )

    shown = yaml.safe_load(notes.split("<<'EOF'\n")[1].split("\nEOF")[0])

    assert shown["spec"] == yaml.safe_load((ROOT / "examples" / "embedded-cpu.yaml").read_text())["spec"]
    assert "DEVICE=cuda" in notes
