"""The images, the installed operator and a namespace for each test."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster.cluster import ROOT, TEMPORARY_LABEL, Cluster, CommandError, run
from tests.cluster.resources import Objects
from tests.cluster.simulated_nodes import NODE_LABEL, SimulatedNodes
from tests.conftest import extend_first, fixtures_of
from tests.walkthrough import Walk, blocks

REGISTRY, TAG = "example.local", "test"
BUILD_SECONDS = 1800
DOOR_IMAGE = os.environ.get("DOOR_IMAGE", f"{REGISTRY}/front-door:{TAG}")
CALM_SECONDS, CALM_LOAD = 900, 1.0  # of a minute, for each CPU
RELEASE_NAMESPACE = "dllm-system"
CRD = "dllmdeployments.serving.dllm.dev"
QUICKSTART = blocks((ROOT / "docs/quickstart.md").read_text(), "Cluster")


@dataclass(frozen=True)
class Images:
    operator: str
    server: str


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with an operator come last, since it would answer to what the others write."""
    items.sort(key=lambda item: "operator" in fixtures_of(item))
    extend_first(items, "images", BUILD_SECONDS)
    extend_first(items, "calm", BUILD_SECONDS)


@pytest.fixture(scope="session")
def cluster(cluster: Cluster) -> Cluster:
    """Without what a run that was cut short has left: its operator would write to this run's resources."""
    cluster.kubectl("delete", "namespaces,crds", "-l", TEMPORARY_LABEL, "--wait=false")
    cluster.kubectl("delete", "node", "-l", NODE_LABEL)
    remove_operator(cluster)
    return cluster


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> Images:
    """Built from this tree and loaded as the quickstart says, unless OPERATOR_IMAGE and SERVER_IMAGE name
    what nodes can pull."""
    if not has_own_images():
        walk = Walk(ROOT, "", cluster.env, words_here(cluster), command_seconds=BUILD_SECONDS)
        walk.run(QUICKSTART[:1])
    return named_images()


def has_own_images() -> bool:
    return "OPERATOR_IMAGE" in os.environ and "SERVER_IMAGE" in os.environ


def named_images() -> Images:
    if has_own_images():
        return Images(os.environ["OPERATOR_IMAGE"], os.environ["SERVER_IMAGE"])
    return Images(f"{REGISTRY}/dllm-operator:{TAG}", f"{REGISTRY}/dllm-server:{TAG}")


def words_here(cluster: Cluster, port: int = 8000) -> dict[str, str]:
    """What stands on this machine for the quickstart's registry, builder and port."""
    images = named_images()
    build = "docker build" if cluster.program is None else f"{shlex.join(cluster.program)} build"
    return {
        "registry.example.com/team/dllm-operator:0.1.0": images.operator,
        "registry.example.com/team/dllm-server:0.1.0": images.server,
        "REGISTRY=registry.example.com/team TAG=0.1.0 DEVICE=cuda": (
            f"REGISTRY={REGISTRY} TAG={TAG} BUILD={shlex.quote(build)}"
        ),
        "docker push": cluster.load_command(),
        "service/embedded 8000": f"service/embedded {port}:8000",
        "localhost:8000": f"localhost:{port}",
    }


@pytest.fixture(scope="session")
def door_image(cluster: Cluster) -> str:
    """Loaded, under the name that the operator gives to front doors, unless DOOR_IMAGE names what nodes can
    pull."""
    if "DOOR_IMAGE" not in os.environ:
        build = ["docker", "build"] if cluster.program is None else [*cluster.program, "build"]
        dockerfile = "tests/cluster/front_door.Dockerfile"
        run([*build, "-t", DOOR_IMAGE, "-f", dockerfile, "."], dict(os.environ), timeout=BUILD_SECONDS)
        cluster.load(DOOR_IMAGE)
    return DOOR_IMAGE


@pytest.fixture(scope="session")
def operator(cluster: Cluster, images: Images) -> Iterator[Images]:
    """Installed by the line of the README; gone, with its CRD, at the end."""
    remove_operator(cluster)
    install_operator(cluster, images)
    yield images
    remove_operator(cluster)


def install_operator(cluster: Cluster, images: Images, *flags: str) -> None:
    chosen = ("--set", f"operator.image={images.operator}", "--set", f"server.image={images.server}")
    door = ("--set", f"frontDoor.image={DOOR_IMAGE}")
    where = ("-n", RELEASE_NAMESPACE, "--create-namespace")
    cluster.helm("install", "dllm", "charts/dllm-operator", *where, *chosen, *door, *flags)
    cluster.kubectl(
        "rollout", "status", "deployment/dllm-operator", "-n", RELEASE_NAMESPACE, "--timeout=120s"
    )


def remove_operator(cluster: Cluster) -> None:
    """Also what a run that was cut short has left. The CRD stays where it would take resources along."""
    releases = json.loads(cluster.helm("list", "-n", RELEASE_NAMESPACE, "-a", "-o", "json"))
    if releases:
        cluster.helm("uninstall", "dllm", "-n", RELEASE_NAMESPACE, "--wait")
    if not resources_in_use(cluster):
        cluster.kubectl("delete", "crd", CRD, "--ignore-not-found", "--timeout=60s")


def resources_in_use(cluster: Cluster) -> list[str]:
    """Resources outside of namespaces that are being deleted."""
    if cluster.get("crd", CRD) is None:
        return []
    active = {
        each["metadata"]["name"] for each in cluster.list("namespaces") if each["status"]["phase"] == "Active"
    }
    keys = [(each["metadata"]["namespace"], each["metadata"]["name"]) for each in cluster.list(CRD)]
    return [f"{namespace}/{name}" for namespace, name in keys if namespace in active]


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """Under the restricted profile; a failing test prints what happened in it."""
    with cluster.temporary_namespace("test") as name:
        yield name
        explain(cluster, name, request)


@pytest.fixture(scope="module")
def shared_namespace(cluster: Cluster) -> Iterator[str]:
    """One for all tests of a file."""
    with cluster.temporary_namespace("shared") as name:
        yield name


@pytest.fixture
def explained(cluster: Cluster, shared_namespace: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """A failing test prints what happened in the namespace that its file's tests share."""
    yield
    explain(cluster, shared_namespace, request)


@pytest.fixture
def objects(operator: Images, cluster: Cluster, namespace: str) -> Objects:
    """Of the test's namespace, which the operator looks after."""
    return Objects(cluster, namespace)


@pytest.fixture(scope="module")
def calm() -> None:
    """For tests whose engines must get work done in time: wait until what runs beside these tests has left
    the CPUs, a quarter of an hour at most."""
    deadline = time.monotonic() + CALM_SECONDS
    while os.getloadavg()[0] > CALM_LOAD * (os.cpu_count() or 1) and time.monotonic() < deadline:
        time.sleep(5)


@pytest.fixture
def nodes(cluster: Cluster) -> Iterator[SimulatedNodes]:
    """None yet; those that the test adds go with it."""
    with SimulatedNodes(cluster) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def standing_nodes(cluster: Cluster) -> Iterator[SimulatedNodes]:
    """None yet; those that a file's tests share go with the last."""
    with SimulatedNodes(cluster) as nodes:
        yield nodes


def explain(cluster: Cluster, namespace: str, request: pytest.FixtureRequest) -> None:
    report = getattr(request.node, "report", None)
    if report is not None and report.failed:
        print(describe(cluster, namespace))


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
