"""The images, the installed operator and a namespace for each test."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster.cluster import Cluster, CommandError, run

REGISTRY, TAG = "example.local", "test"
RELEASE_NAMESPACE = "dllm-system"
CRD = "dllmdeployments.serving.dllm.dev"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


@dataclass(frozen=True)
class Images:
    operator: str
    server: str


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> Images:
    """Built from this tree and loaded, unless OPERATOR_IMAGE and SERVER_IMAGE name what nodes can pull."""
    if "OPERATOR_IMAGE" in os.environ and "SERVER_IMAGE" in os.environ:
        return Images(os.environ["OPERATOR_IMAGE"], os.environ["SERVER_IMAGE"])
    build = "docker build" if cluster.program is None else f"{' '.join(cluster.program)} build"
    arguments = ["make", "images", f"REGISTRY={REGISTRY}", f"TAG={TAG}", f"BUILD={build}"]
    run(arguments, dict(os.environ), timeout=1500)
    images = Images(f"{REGISTRY}/dllm-operator:{TAG}", f"{REGISTRY}/dllm-server:{TAG}")
    cluster.load(images.operator, images.server, nodes="node-0,node-1" if cluster.program else None)
    return images


@pytest.fixture(scope="session")
def operator(cluster: Cluster, images: Images) -> Iterator[Images]:
    """Installed by the line of the README; gone, with its CRD, at the end."""
    remove_operator(cluster)
    install_operator(cluster, images)
    yield images
    remove_operator(cluster)


def install_operator(cluster: Cluster, images: Images, *flags: str) -> None:
    chosen = ("--set", f"operator.image={images.operator}", "--set", f"server.image={images.server}")
    where = ("-n", RELEASE_NAMESPACE, "--create-namespace")
    cluster.helm("install", "dllm", "charts/dllm-operator", *where, *chosen, *flags)
    cluster.kubectl(
        "rollout", "status", "deployment/dllm-operator", "-n", RELEASE_NAMESPACE, "--timeout=120s"
    )


def remove_operator(cluster: Cluster) -> None:
    """Also what a run that was cut short has left."""
    releases = json.loads(cluster.helm("list", "-n", RELEASE_NAMESPACE, "-a", "-o", "json"))
    if releases:
        cluster.helm("uninstall", "dllm", "-n", RELEASE_NAMESPACE, "--wait")
    cluster.kubectl(
        "delete", "crd", "dllmdeployments.serving.dllm.dev", "--ignore-not-found", "--timeout=60s"
    )


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """Under the restricted profile; a failing test prints what happened in it."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, RESTRICTED)
    yield name
    report = getattr(request.node, "report", None)
    if report is not None and report.failed:
        print(describe(cluster, name))
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def describe(cluster: Cluster, namespace: str) -> str:
    """Resources, pods, events and the operator's log, for the reader of a failure."""
    looks = [
        ("get", "dllmdeployments.serving.dllm.dev", "-n", namespace, "-o", "yaml"),
        ("get", "pods,deployments", "-n", namespace, "-o", "wide"),
        ("get", "events", "-n", namespace, "--sort-by=.lastTimestamp"),
        ("logs", "-n", RELEASE_NAMESPACE, "-l", "app.kubernetes.io/name=dllm-operator", "--tail=60"),
    ]
    texts = []
    for look in looks:
        try:
            texts.append(cluster.kubectl(*look))
        except CommandError as error:
            texts.append(str(error))
    return "\n".join(texts)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    outcome = yield
    if call.when == "call":
        item.report = outcome.get_result()  # type: ignore[attr-defined]
