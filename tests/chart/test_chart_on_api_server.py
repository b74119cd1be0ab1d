"""The chart against a real API server. No pod runs: replicas are 0, and hooks are only validated."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import yaml

from tests.cluster.cluster import TEMPORARY_LABEL

if TYPE_CHECKING:
    from conftest import Tools

pytestmark = pytest.mark.cluster

CHART = Path(__file__).resolve().parents[2] / "charts" / "dllm-operator"
NO_PODS = ("--set", "operator.replicas=0")
WITHOUT_CRD = "--set=crds.enabled=false"


@pytest.fixture
def copied_chart(tools: Tools, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A chart whose definition has a group of its own, and that definition's name."""
    chart = tmp_path / "dllm-operator"
    shutil.copytree(CHART, chart)
    crd = read_crd(chart)
    crd["spec"]["group"] = f"chart-{uuid4().hex[:8]}.{crd['spec']['group']}"
    crd["metadata"] |= {"labels": {TEMPORARY_LABEL: "true"}}
    crd["metadata"]["name"] = f"{crd['spec']['names']['plural']}.{crd['spec']['group']}"
    write_crd(chart, crd)
    yield chart, crd["metadata"]["name"]
    tools.run("kubectl", "delete", "crd", crd["metadata"]["name"], "--wait=false")


@pytest.fixture
def release(tools: Tools, namespace: str) -> Iterator[str]:
    """Name of a release in the test's namespace, uninstalled afterwards."""
    yield "dllm"
    tools.run("helm", "uninstall", "dllm", "--namespace", namespace, "--ignore-not-found")


def read_crd(chart: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((chart / "files" / "crd.yaml").read_text()))


def write_crd(chart: Path, crd: dict[str, Any]) -> None:
    (chart / "files" / "crd.yaml").write_text(yaml.safe_dump(crd))


def resource_of(crd: dict[str, Any], namespace: str, **metadata: Any) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": f"{crd['spec']['group']}/{crd['spec']['versions'][0]['name']}",
            "kind": crd["spec"]["names"]["kind"],
            "metadata": {"name": "kept", "namespace": namespace, **metadata},
            "spec": {"model": {"source": "embedded"}, "device": "cpu"},
        }
    )


def test_the_api_server_accepts_every_object(tools: Tools, values: dict[str, Any], namespace: str) -> None:
    manifests = tools.render(values, namespace)
    known = tools.check("kubectl", "api-resources", "--no-headers", "--output=name").splitlines()
    for kind in ("PodMonitor", "PrometheusRule"):
        if f"{kind.lower()}s.monitoring.coreos.com" not in known:
            manifests = [one for one in manifests if one["kind"] != kind]
    for pod in (one for one in manifests if one["kind"] == "Pod"):
        del pod["spec"]["serviceAccountName"]  # a dry run makes no account for it

    command = ("kubectl", "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
    done = tools.run(*command, stdin=yaml.safe_dump_all(manifests))

    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def test_the_operators_pods_pass_the_restricted_profile(
    tools: Tools, values: dict[str, Any], namespace: str
) -> None:
    (deployment,) = [one for one in tools.render(values, namespace) if one["kind"] == "Deployment"]
    pod = deployment["spec"]["template"] | {"apiVersion": "v1", "kind": "Pod"}
    pod["metadata"] |= {"name": "operator", "namespace": namespace}
    pod["spec"] = {name: part for name, part in pod["spec"].items() if name != "serviceAccountName"}

    command = ("kubectl", "create", "--dry-run=server", "-f", "-")
    done = tools.run(*command, stdin=yaml.safe_dump(pod))

    assert done.returncode == 0, done.stderr


def refused(
    tools: Tools, namespace: str, questions: list[tuple[str, str, str]]
) -> list[tuple[str, str, str]]:
    """Which (namespace or "", verb, resource.group) the operator installed in ``namespace`` may not."""
    account = f"system:serviceaccount:{namespace}:dllm-operator"
    reviews = []
    for where, verb, target in questions:
        resource, _, group = target.partition(".")
        attributes = {"namespace": where, "verb": verb, "resource": resource, "group": group}
        spec = {"user": account, "groups": ["system:serviceaccounts"], "resourceAttributes": attributes}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        reviews.append(body | {"metadata": {}})
    said = tools.check(
        "kubectl",
        "create",
        "-f",
        "-",
        "--output=jsonpath={.status.allowed}{'\\n'}",
        stdin=yaml.safe_dump_all(reviews),
    )
    return [question for question, word in zip(questions, said.split(), strict=True) if word != "true"]


def install(tools: Tools, release: str, namespace: str, *options: str, chart: Path = CHART) -> None:
    tools.check("helm", "install", release, str(chart), "--namespace", namespace, *NO_PODS, *options)


def test_the_operator_of_the_whole_cluster_can_work_in_every_namespace(
    tools: Tools, namespace: str, release: str
) -> None:
    install(tools, release, namespace, WITHOUT_CRD)

    needs = [
        ("", "watch", "dllmdeployments.serving.dllm.dev"),
        ("", "patch", "dllmdeployments.serving.dllm.dev"),
        ("", "watch", "nodes"),
        ("", "list", "customresourcedefinitions.apiextensions.k8s.io"),
        ("default", "patch", "deployments.apps"),
        ("default", "delete", "persistentvolumeclaims"),
        ("default", "create", "scaledobjects.keda.sh"),
        ("default", "create", "events"),
        (namespace, "update", "leases.coordination.k8s.io"),
    ]
    assert refused(tools, namespace, needs) == []


def test_the_operator_can_neither_read_secrets_nor_touch_what_it_does_not_make(
    tools: Tools, namespace: str, release: str
) -> None:
    install(tools, release, namespace, WITHOUT_CRD)

    secrets = [
        (where, verb, "secrets")
        for where in ("", "default", namespace)
        for verb in ("get", "list", "watch", "create", "patch", "delete")
    ]
    others = [
        ("", "patch", "nodes"),
        ("", "create", "pods"),
        ("default", "delete", "pods"),
        ("default", "create", "serviceaccounts/token"),
        ("default", "create", "dllmdeployments.serving.dllm.dev"),
        ("default", "delete", "dllmdeployments.serving.dllm.dev"),
        ("default", "patch", "statefulsets.apps"),
        ("default", "patch", "horizontalpodautoscalers.autoscaling"),
        ("default", "update", "leases.coordination.k8s.io"),
        ("", "patch", "customresourcedefinitions.apiextensions.k8s.io"),
        ("", "create", "clusterrolebindings.rbac.authorization.k8s.io"),
    ]
    assert refused(tools, namespace, secrets + others) == secrets + others


def test_the_operator_of_one_namespace_can_do_nothing_in_another(
    tools: Tools, namespace: str, release: str
) -> None:
    install(tools, release, namespace, WITHOUT_CRD, f"--set=watchNamespaces={{{namespace}}}")

    here = [(namespace, "create", "deployments.apps"), ("", "list", "nodes"), ("", "list", "namespaces")]
    elsewhere = [
        ("default", "list", "pods"),
        ("default", "create", "deployments.apps"),
        ("", "list", "dllmdeployments.serving.dllm.dev"),
    ]
    assert refused(tools, namespace, here + elsewhere) == elsewhere


def test_an_upgrade_changes_the_definition_and_an_uninstall_leaves_it_with_its_resources(
    tools: Tools, namespace: str, release: str, copied_chart: tuple[Path, str]
) -> None:
    chart, crd_name = copied_chart
    crd = read_crd(chart)
    in_namespace = ("--namespace", namespace)
    install(tools, release, namespace, chart=chart)
    tools.await_definition(crd_name)
    tools.check("kubectl", "create", "-f", "-", stdin=resource_of(crd, namespace))

    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["later"] = {"type": "string"}
    write_crd(chart, crd)
    tools.check("helm", "upgrade", release, str(chart), *in_namespace, *NO_PODS)
    upgraded = yaml.safe_load(tools.check("kubectl", "get", "crd", crd_name, "--output=yaml"))
    tools.check("helm", "uninstall", release, *in_namespace)
    kept = tools.check("kubectl", "get", crd_name, "kept", *in_namespace, "--output=name")
    install(tools, release, namespace, chart=chart)

    properties = upgraded["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert properties["later"] == {"type": "string"}
    assert kept.strip().endswith("/kept")
