"""From `helm install` to an answer, through an upgrade with a changed CRD, to `helm uninstall`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.cluster.cluster import ROOT, Cluster
from tests.cluster.conftest import CRD, RELEASE_NAMESPACE, Images, install_operator, remove_operator
from tests.cluster.serving import (
    ANSWER,
    RESOURCE,
    InClusterClient,
    children,
    make_resource,
    wait_ready,
)

pytestmark = pytest.mark.cluster

EXAMPLE = ROOT / "examples" / "embedded-cpu.yaml"
EVERY_CHILD = [
    "ConfigMap/embedded-cpu-tuning",
    "Deployment/embedded-cpu",
    "NetworkPolicy/embedded",
    "PodDisruptionBudget/embedded",
    "Service/embedded",
    "ServiceAccount/embedded-dllm",
]


def test_the_example_answers_a_question_inside_the_cluster(
    cluster: Cluster, operator: Images, namespace: str
) -> None:
    cluster.apply(EXAMPLE.read_text(), namespace)
    client = InClusterClient(cluster, namespace, operator.server)
    live = wait_ready(cluster, namespace, "embedded")

    assert live["status"]["url"] == f"http://embedded.{namespace}.svc:8000"
    assert client.ask(live["status"]["url"]) == ANSWER
    assert children(cluster, namespace, "embedded") == EVERY_CHILD
    columns = cluster.kubectl("get", "dllm", "embedded", "-n", namespace, "--no-headers").split()
    assert columns[:6] == ["embedded", "embedded", "True", "1", "0", "Off"]


def test_deleting_a_resource_removes_every_child(cluster: Cluster, operator: Images, namespace: str) -> None:
    cluster.apply(make_resource("gone", replicas=0), namespace)
    cluster.wait_for(
        "the children exist", lambda: len(children(cluster, namespace, "gone")) == len(EVERY_CHILD)
    )

    cluster.kubectl("delete", RESOURCE, "gone", "-n", namespace)

    cluster.wait_for("no child is left", lambda: not children(cluster, namespace, "gone"), 60)


def test_an_upgrade_changes_the_crd_and_keeps_the_resources(
    cluster: Cluster, operator: Images, namespace: str, tmp_path: Path
) -> None:
    cluster.apply(make_resource("kept", replicas=0), namespace)
    chart = tmp_path / "dllm-operator"
    shutil.copytree(ROOT / "charts" / "dllm-operator", chart)
    file = chart / "files" / "crd.yaml"
    crd = yaml.safe_load(file.read_text())
    column = {"name": "Image", "type": "string", "jsonPath": ".spec.image", "priority": 1}
    crd["spec"]["versions"][0]["additionalPrinterColumns"].append(column)
    file.write_text(yaml.safe_dump(crd))

    cluster.helm("upgrade", "dllm", str(chart), "-n", RELEASE_NAMESPACE, "--reuse-values")

    live = cluster.get("crd", CRD)
    assert live is not None
    assert column in live["spec"]["versions"][0]["additionalPrinterColumns"]
    assert cluster.get(RESOURCE, "kept", namespace) is not None


def test_uninstalling_leaves_crd_and_resources_which_can_still_be_deleted(
    cluster: Cluster, operator: Images, namespace: str
) -> None:
    cluster.apply(make_resource("orphan", replicas=0), namespace)
    cluster.wait_for("the children exist", lambda: children(cluster, namespace, "orphan"))

    cluster.helm("uninstall", "dllm", "-n", RELEASE_NAMESPACE, "--wait")

    try:
        live = cluster.get(RESOURCE, "orphan", namespace)
        assert live is not None
        assert "finalizers" not in live["metadata"]
        cluster.kubectl("delete", RESOURCE, "orphan", "-n", namespace, "--timeout=30s")
        cluster.wait_for("no child is left", lambda: not children(cluster, namespace, "orphan"), 60)
        assert cluster.get("crd", CRD) is not None
        with cluster.temporary_namespace("uninstalled") as other:
            cluster.apply(make_resource("left", replicas=0), other)
        cluster.wait_for("the namespace is gone", lambda: cluster.get("namespace", other) is None, 60)
    finally:
        remove_operator(cluster)
        install_operator(cluster, operator)
