"""The administrator's limits on a real API server: what they refuse, let pass and leave alone."""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import yaml
from dllm_operator.api.v1alpha1 import DLLMDeploymentSpec
from dllm_operator.cluster.observe import Observed
from dllm_operator.planning.plan import plan

from tests.cluster.cluster import TEMPORARY_LABEL, Cluster

if TYPE_CHECKING:
    from conftest import Tools

pytestmark = pytest.mark.cluster

CHART = Path(__file__).resolve().parents[2] / "charts" / "dllm-operator"
PLURAL, GROUP = "dllmdeployments", "serving.dllm.dev"
ACTIVE_SECONDS = 60.0  # in which the API server takes up new policies
LIMITS: dict[str, Any] = {
    "allowedImages": ["docker.io/dllmserve/", "registry.example/team/", "registry.example/other/server"],
    "allowedModelSources": [
        "embedded",
        "GSAI-ML/",
        "Dream-org/Dream-v0-Instruct-7B",
        "pvc://models",
        "pvc://shared/llada",
    ],
    "maxGpusPerNamespace": 8,
}
IMAGES, SOURCES, GPUS = "images", "model-sources", "gpus"
DIGEST = "sha256:" + "0" * 64
AUTOSCALING = {"maxReplicas": 2, "metric": {"target": 4}, "prometheusAddress": "http://prometheus:9090"}
HUB = "GSAI-ML/LLaDA-8B-Instruct"


def pool(name: str, gpus: int = 1, replicas: int | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "gpusPerReplica": gpus,
        **({} if replicas is None else {"replicas": replicas}),
        **fields,
    }


def image(name: str) -> dict[str, Any]:
    return {"image": name}


def source(name: str, **model: Any) -> dict[str, Any]:
    return {"model": {"source": name} | model}


def gpus(**spec: Any) -> dict[str, Any]:
    return {"device": "cuda"} | spec


def env(name: str) -> dict[str, Any]:
    return {"podTemplate": {"env": [{"name": name, "value": "x"}]}}


PASS: dict[str, dict[str, Any]] = {
    "the-default-image": {},
    "an-image-below": image("registry.example/team/server:1"),
    "an-image-far-below": image(f"registry.example/team/a/b@{DIGEST}"),
    "a-named-image": image("registry.example/other/server"),
    "a-named-image-with-a-tag": image("registry.example/other/server:1"),
    "a-named-image-with-both": image(f"registry.example/other/server:1@{DIGEST}"),
    "a-model-of-an-organisation": source(HUB, cache={"size": "1Gi"}),
    "a-named-model": source("Dream-org/Dream-v0-Instruct-7B"),
    "a-claim": source("pvc://models"),
    "a-directory-of-a-claim": source("pvc://models/a/b"),
    "a-named-directory": source("pvc://shared/llada"),
    "below-a-named-directory": source("pvc://shared/llada/v2"),
    "a-cache-in-a-claim": source(HUB, cache={"claimName": "models"}),
    "offline": env("HF_HUB_OFFLINE"),
    "its-own-variable": env("TZ"),
    "many-without-gpus": {"replicas": 100},
    "as-many-as-allowed": gpus(replicas=8),
    "pools-within": gpus(gpuPools=[pool("a", 4, 1), pool("b", 1, 4)]),
    "one-pod-a-pool": gpus(gpuPools=[pool("a", 4), pool("b", 1)]),
    "the-rest-within": gpus(replicas=8, gpuPools=[pool("a", 1, 4), pool("b", 1)]),
    "autoscaled-within": gpus(autoscaling=AUTOSCALING, gpuPools=[pool("a", 4)]),
    "nobody": gpus(replicas=0, gpuPools=[pool("a", 16)]),
}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a-longer-folder": (IMAGES, image("registry.example/team-evil/server")),
    "a-longer-name": (IMAGES, image("registry.example/other/server-evil:1")),
    "another-program": (IMAGES, env("PATH")),
    "another-compiler": (IMAGES, env("CC")),
    "code-of-its-own": (IMAGES, env("LD_PRELOAD")),
    "below-a-name": (IMAGES, image("registry.example/other/server/evil")),
    "a-port": (IMAGES, image("registry.example/other/server:5000/evil")),
    "a-longer-account": (IMAGES, image("docker.io/dllmserve-evil/server")),
    "another-registry": (IMAGES, image("evil.example/registry.example/team/server")),
    "another-spelling": (IMAGES, image("Registry.example/team/server")),
    "an-organisation-named-embedded": (SOURCES, source("embedded/model")),
    "a-longer-organisation": (SOURCES, source("GSAI-ML-evil/model")),
    "a-longer-model": (SOURCES, source("Dream-org/Dream-v0-Instruct-7B-evil")),
    "a-longer-claim": (SOURCES, source("pvc://models-evil/model")),
    "above-a-directory": (SOURCES, source("pvc://shared")),
    "a-longer-directory": (SOURCES, source("pvc://shared/llada-evil")),
    "a-cache-in-another-claim": (SOURCES, source(HUB, cache={"claimName": "other"})),
    "a-cache-in-more-than-a-directory": (SOURCES, source(HUB, cache={"claimName": "shared"})),
    "another-hub": (SOURCES, env("HF_ENDPOINT")),
    "one-more": (GPUS, gpus(replicas=9)),
    "beside-the-device-plugin": (GPUS, env("NVIDIA_VISIBLE_DEVICES")),
    "pools-beyond": (GPUS, gpus(gpuPools=[pool("a", 4, 2), pool("b", 1, 1)])),
    "the-rest-beyond": (GPUS, gpus(replicas=9, gpuPools=[pool("a", 1, 4), pool("b", 1)])),
    "the-rest-may-be-large": (GPUS, gpus(replicas=4, gpuPools=[pool("a", 4), pool("b", 1)])),
    "autoscaled-beyond": (GPUS, gpus(autoscaling=AUTOSCALING, gpuPools=[pool("a", 4), pool("b", 1)])),
    "one-a-kind-of-node": (GPUS, gpus()),
    "autoscaled-a-kind-of-node": (GPUS, gpus(autoscaling=AUTOSCALING)),
    "beside-the-count": (GPUS, {"podTemplate": {"resources": {"limits": {"nvidia.com/gpu": "8"}}}}),
    "beside-a-pools-count": (
        GPUS,
        gpus(gpuPools=[pool("a", 1, 1, resources={"requests": {"nvidia.com/mig-1g.5gb": "8"}})]),
    ),
}


# Of one object that is refused kubectl writes "is invalid: : ", of several "is forbidden: ".
REFUSAL = re.compile(r'"([^"]+)" is (?:forbidden|invalid: ): ValidatingAdmissionPolicy \'[^\']*\.([a-z-]+)\'')


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace where the limits hold, and ``old``, which was there before them and keeps none."""

    tools: Tools
    namespace: str
    group: str

    @property
    def kind(self) -> str:
        return f"{PLURAL}.{self.group}"

    def manifest(self, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": f"{self.group}/v1alpha1",
            "kind": "DLLMDeployment",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"model": {"source": "embedded"}, "device": "cpu", **spec},
        }

    def refusals(self, specs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Of those that the API server would not create, the limit that says no."""
        text = yaml.safe_dump_all(self.manifest(name, spec) for name, spec in specs.items())
        done = self.tools.run("kubectl", "create", "--dry-run=server", "-f", "-", stdin=text)
        found = {}
        for line in done.stderr.splitlines():
            match = REFUSAL.search(line)
            assert match is not None, line
            found[match[1]] = match[2]
        return found

    def patch(self, body: str, *options: str) -> str:
        """What the API server says against it, "" if nothing."""
        done = self.tools.run(
            "kubectl", "patch", self.kind, "old", "-n", self.namespace, "--type=merge", f"--patch={body}",
            "--dry-run=server", *options,
        )  # fmt: skip
        return "" if done.returncode == 0 else done.stderr

    def scale(self, replicas: int) -> str:
        done = self.tools.run(
            "kubectl", "scale", f"{self.kind}/old", "-n", self.namespace, f"--replicas={replicas}",
            "--dry-run=server",
        )  # fmt: skip
        return "" if done.returncode == 0 else done.stderr


@pytest.fixture(scope="module")
def place(cluster: Cluster, tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Under a group of the test's own, so that no other test and no operator sees it."""
    chart = tmp_path_factory.mktemp("chart") / "dllm-operator"
    shutil.copytree(CHART, chart)
    group = f"policies-{uuid4().hex[:8]}.{GROUP}"
    crd = yaml.safe_load((chart / "files" / "crd.yaml").read_text())
    crd["spec"]["group"], crd["metadata"]["name"] = group, f"{PLURAL}.{group}"
    crd["metadata"]["labels"] = {TEMPORARY_LABEL: "true"}
    (chart / "files" / "crd.yaml").write_text(yaml.safe_dump(crd))
    template = chart / "templates" / "_policies.tpl"
    assert f"apiGroups: [{GROUP}]" in template.read_text()
    template.write_text(template.read_text().replace(f"apiGroups: [{GROUP}]", f"apiGroups: [{group}]"))
    with cluster.temporary_namespace("policies") as namespace:
        place = Place(tools, namespace, group)
        helm = ("dllm", str(chart), "--namespace", namespace, "--set", "operator.replicas=0", "--values", "-")
        where = {"watchNamespaces": [namespace]}
        try:
            tools.check("helm", "install", *helm, stdin=yaml.safe_dump(where))
            tools.await_definition(place.kind)
            old = gpus(
                image="evil.example/server:1", replicas=100, **source("evil/model"), **env("HF_ENDPOINT")
            )
            tools.check("kubectl", "create", "-f", "-", stdin=yaml.safe_dump(place.manifest("old", old)))
            tools.check("helm", "upgrade", *helm, stdin=yaml.safe_dump(where | {"policies": LIMITS}))
            await_limits(place)
            yield place
        finally:
            tools.run("helm", "uninstall", "dllm", "--namespace", namespace, "--ignore-not-found")
            tools.run("kubectl", "delete", "crd", place.kind, "--wait=false", "--ignore-not-found")


def await_limits(place: Place) -> None:
    until = time.monotonic() + ACTIVE_SECONDS
    beyond = {"images": image("a/b"), "model-sources": source("a/b"), "gpus": gpus(replicas=9)}
    while place.refusals(beyond) != {name: name for name in beyond} or not place.scale(101):
        assert time.monotonic() < until, "the API server does not take up the limits"
        time.sleep(0.5)


def test_what_the_limits_allow_is_admitted(place: Place) -> None:
    assert place.refusals(PASS) == {}


def test_what_the_limits_forbid_is_refused_by_the_limit_concerned(place: Place) -> None:
    assert place.refusals({name: spec for name, (_, spec) in REFUSED.items()}) == {
        name: limit for name, (limit, _) in REFUSED.items()
    }


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            image("evil.example/a:1"),
            "image 'evil.example/a:1' is not among those that the administrator allows",
        ),
        (source("evil/model"), "model source 'evil/model' is not among those that the administrator allows"),
        (gpus(replicas=9), "may take 9 GPUs, and the administrator allows 8 in a namespace"),
        (env("HF_ENDPOINT"), "podTemplate.env HF_ENDPOINT could take models from elsewhere"),
        (env("PATH"), "podTemplate.env PATH could run other programs"),
        (env("NVIDIA_VISIBLE_DEVICES"), "NVIDIA_VISIBLE_DEVICES could take GPUs that are not counted"),
    ],
    ids=["image", "source", "gpus", "env", "code", "devices"],
)
def test_a_refusal_names_the_value_and_the_limit(place: Place, spec: dict[str, Any], says: str) -> None:
    text = yaml.safe_dump(place.manifest("refused", spec))

    assert says in place.tools.run("kubectl", "create", "--dry-run=server", "-f", "-", stdin=text).stderr


def many_pools() -> Iterator[dict[str, Any]]:
    """Specs with pools of every mixture of sizes and fixed numbers, all beyond the limit."""
    shapes = [(16, 2), (4, None), (16, None), (1, 3)]
    for size in (1, 2, 3):
        for chosen in itertools.product(shapes, repeat=size):
            pools = [pool(f"p{number}", *shape) for number, shape in enumerate(chosen)]
            fixed = sum(replicas or 0 for _, replicas in chosen)
            if all(replicas is not None for _, replicas in chosen):
                yield gpus(gpuPools=pools)
            else:
                yield from (gpus(gpuPools=pools), gpus(gpuPools=pools, replicas=fixed + 7))


def test_gpus_are_counted_as_the_operator_plans_them(place: Place) -> None:
    """Or higher, where pools of different sizes share pods."""
    specs = {f"spec-{number}": spec for number, spec in enumerate(many_pools())}
    text = yaml.safe_dump_all(place.manifest(name, spec) for name, spec in specs.items())

    said = place.tools.run("kubectl", "create", "--dry-run=server", "-f", "-", stdin=text).stderr

    counted = {name: int(count) for name, count in re.findall(r'"(spec-\d+)" is .*may take (\d+) GPUs', said)}
    planned = {name: planned_gpus(spec) for name, spec in specs.items()}
    beyond = {name for name, count in planned.items() if count > LIMITS["maxGpusPerNamespace"]}
    assert beyond <= counted.keys()
    assert [name for name in counted if counted[name] < planned[name]] == []
    alike = [name for name in counted if len({p["gpusPerReplica"] for p in shared(specs[name])}) < 2]
    assert [name for name in alike if counted[name] != planned[name]] == []
    assert len(alike) > 20


def shared(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in spec["gpuPools"] if "replicas" not in each]


def planned_gpus(spec: dict[str, Any]) -> int:
    parsed = DLLMDeploymentSpec.model_validate({"model": {"source": "embedded"}} | spec)
    pools = plan("counted", parsed, Observed()).pools
    return sum(each.gpus_per_replica * (each.replicas or 0) for each in pools)


@pytest.mark.parametrize(
    ("change", "is_allowed"),
    [
        ('{"metadata": {"labels": {"a": "b"}}}', True),
        ('{"spec": {"replicas": 50}}', True),
        ('{"spec": {"image": "registry.example/team/server:1"}}', True),
        ('{"spec": {"podTemplate": {"env": []}}}', True),
        ('{"spec": {"replicas": 101}}', False),
        ('{"spec": {"image": "evil.example/server:2"}}', False),
        ('{"spec": {"gpuPools": [{"name": "a", "gpusPerReplica": 2, "replicas": 100}]}}', False),
        ('{"spec": {"podTemplate": {"env": [{"name": "HF_ENDPOINT", "value": "/elsewhere"}]}}}', False),
    ],
)
def test_what_was_there_before_may_stay_and_come_closer_but_not_go_further(
    place: Place, change: str, is_allowed: bool
) -> None:
    assert (place.patch(change) == "") is is_allowed


def test_status_and_deletion_are_not_limited(place: Place) -> None:
    assert place.patch('{"status": {"replicas": 1}}', "--subresource=status") == ""
    place.tools.check("kubectl", "delete", place.kind, "old", "-n", place.namespace, "--dry-run=server")


def test_the_scale_subresource_only_lowers(place: Place) -> None:
    assert [place.scale(99), place.scale(0)] == ["", ""]
    assert "raise spec.replicas of the resource itself" in place.scale(101)


def test_namespaces_that_the_operator_does_not_serve_are_not_limited(place: Place) -> None:
    elsewhere = place.manifest("free", image("evil.example/server")) | {
        "metadata": {"name": "free", "namespace": "default"}
    }

    done = place.tools.run(
        "kubectl", "create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(elsewhere)
    )

    assert done.returncode == 0, done.stderr


def test_pods_of_a_watched_namespace_together_take_no_more_gpus_than_allowed(place: Place) -> None:
    def pod(name: str, gpus: int) -> dict[str, Any]:
        container = {
            "name": "engine",
            "image": "example.local/none",
            "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        spec = {
            "containers": [container],
            "nodeSelector": {"no": "node"},
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        }
        metadata = {"name": name, "namespace": place.namespace}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    until = time.monotonic() + ACTIVE_SECONDS
    while not place.tools.check(
        "kubectl", "get", "resourcequota", "-n", place.namespace, "-o", "jsonpath={.items[*].status.used}"
    ):
        assert time.monotonic() < until, "the quota is counted"
        time.sleep(0.5)
    place.tools.check("kubectl", "create", "-f", "-", stdin=yaml.safe_dump(pod("first", 5)))
    done = place.tools.run("kubectl", "create", "-f", "-", stdin=yaml.safe_dump(pod("second", 4)))

    assert "exceeded quota" in done.stderr
    assert "requests.nvidia.com/gpu=8" in done.stderr
