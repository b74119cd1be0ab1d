"""Replicas that somebody else owns: KEDA by the resource's wish, or an autoscaler that a user adds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dllm_operator.cluster.kinds import BY_KIND, definition_name
from dllm_operator.cluster.observe import Integration

from tests.cluster.cluster import Cluster
from tests.cluster.resources import Fields, Manifest, Objects, Serving, eventually
from tests.cluster.simulated_nodes import SimulatedNodes, on_node

pytestmark = pytest.mark.cluster

NODE = "simulated-autoscaling"
SPEC: Fields = {"device": "cpu", "podTemplate": on_node(NODE)}
AUTOSCALING: Fields = {
    "autoscaling": {
        "minReplicas": 1,
        "maxReplicas": 8,
        "metric": {"target": 4},
        "prometheusAddress": "http://prometheus.monitoring:9090",
    }
}
CONTROLLER_SECONDS = 60.0  # the HPA controller looks every 15 s


@pytest.fixture(scope="module", autouse=True)
def node(standing_nodes: SimulatedNodes) -> None:
    standing_nodes.add(NODE)


def definition(integration: Integration) -> Manifest:
    """A CRD that takes every field, in place of the integration's own."""
    kind = BY_KIND[integration]
    group, _, version = kind.api_version.partition("/")
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": definition_name(kind),
            "annotations": {"api-approved.kubernetes.io": "unapproved, a test's stand-in"},
        },
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [served]},
    }


class Definitions:
    """CRDs of integrations, removed at the end unless they were there before."""

    def __init__(self, cluster: Cluster) -> None:
        self._objects = Objects(cluster)
        self._made: list[str] = []

    def install(self, integration: Integration) -> None:
        manifest = definition(integration)
        name = manifest["metadata"]["name"]
        if self._objects.find(manifest["kind"], name) is None:
            self._made.append(name)
            self._objects.create(manifest)

    def is_installed(self, integration: Integration) -> bool:
        manifest = definition(integration)
        return self._objects.find(manifest["kind"], manifest["metadata"]["name"]) is not None

    def remove(self) -> None:
        for name in self._made:
            self._objects.delete("CustomResourceDefinition", name)


@pytest.fixture
def definitions(cluster: Cluster) -> Iterator[Definitions]:
    definitions = Definitions(cluster)
    yield definitions
    definitions.remove()


def wait_replicas(serving: Serving, wanted: int, seconds: float = 90.0) -> None:
    def check() -> None:
        assert serving.deployment()["spec"]["replicas"] == wanted

    eventually(check, seconds)


def wait_environment(serving: Serving, name: str, value: str) -> None:
    """The operator has applied the Deployment, so what it leaves alone now it leaves alone."""

    def check() -> None:
        assert serving.environment().get(name) == value

    eventually(check)


def check_scaled_object(objects: Objects, *, is_wanted: bool) -> None:
    assert (objects.find("ScaledObject", "a-cpu") is not None) is is_wanted


def check_bounds(objects: Objects, fewest: int, most: int) -> None:
    spec = objects.get("ScaledObject", "a-cpu")["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (fewest, most)


def test_autoscaling_hands_the_replicas_over_and_takes_them_back(
    cluster: Cluster, objects: Objects, definitions: Definitions
) -> None:
    if definitions.is_installed(Integration.SCALED_OBJECT):
        pytest.skip("KEDA is installed here: it would scale what this test scales by hand")
    namespace = str(objects.namespace)
    serving = Serving.create(objects, "a", SPEC, {"replicas": 3})
    serving.wait_ready()

    serving.edit({"replicas": None} | AUTOSCALING)

    missing = serving.wait_reason("IntegrationsReady", "CRDMissing")
    assert missing["status"] == "False"
    assert "ScaledObject: the CRD is not installed" in missing["message"]
    assert serving.deployment()["spec"]["replicas"] == 3

    definitions.install(Integration.SCALED_OBJECT)

    assert serving.wait_reason("IntegrationsReady", "Created")["status"] == "True"
    scaled = objects.get("ScaledObject", "a-cpu")["spec"]
    assert scaled["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a-cpu"}
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (1, 8)

    cluster.kubectl("scale", "deployment/a-cpu", "--replicas=5", "-n", namespace)
    serving.edit({"engine": {"maxNumSeqs": 8}})

    wait_environment(serving, "DLLM_MAX_NUM_SEQS", "8")
    assert serving.wait_ready()["replicas"] == 5

    objects.delete("ScaledObject", "a-cpu")
    eventually(lambda: check_scaled_object(objects, is_wanted=True))

    serving.edit({"autoscaling": {"minReplicas": 2, "maxReplicas": 6}})
    eventually(lambda: check_bounds(objects, 2, 6))

    serving.edit({"replicas": 2, "autoscaling": None})

    wait_replicas(serving, 2)
    eventually(lambda: check_scaled_object(objects, is_wanted=False))
    assert serving.wait_reason("IntegrationsReady", "NotRequested")["status"] == "True"
    cluster.kubectl("scale", "deployment/a-cpu", "--replicas=4", "-n", namespace)
    wait_replicas(serving, 2)


def test_an_autoscaled_pool_that_is_new_starts_with_the_fewest_pods(objects: Objects) -> None:
    serving = Serving.create(
        objects, "a", SPEC, {"autoscaling": AUTOSCALING["autoscaling"] | {"minReplicas": 2}}
    )

    assert serving.wait_ready()["replicas"] == 2


def autoscaler(fewest: int) -> Manifest:
    """Without a metrics server it has no metric, and keeps the replicas within its bounds."""
    target = {"type": "Utilization", "averageUtilization": 50}
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "by-a-user"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a-cpu"},
            "minReplicas": fewest,
            "maxReplicas": 9,
            "metrics": [metric],
        },
    }


def test_an_autoscaler_of_the_users_owns_the_replicas_while_it_exists(
    cluster: Cluster, objects: Objects
) -> None:
    serving = Serving.create(objects, "a", SPEC, {"replicas": 2})
    serving.wait_ready()

    objects.create(autoscaler(fewest=4))

    wait_replicas(serving, 4, CONTROLLER_SECONDS)
    serving.edit({"engine": {"maxNumSeqs": 8}})
    wait_environment(serving, "DLLM_MAX_NUM_SEQS", "8")
    assert serving.wait_ready()["replicas"] == 4

    cluster.kubectl("scale", "deployment/a-cpu", "--replicas=6", "-n", str(objects.namespace))
    serving.edit({"engine": {"maxNumSeqs": 16}})
    wait_environment(serving, "DLLM_MAX_NUM_SEQS", "16")
    assert serving.wait_ready()["replicas"] == 6

    objects.delete("HorizontalPodAutoscaler", "by-a-user")

    wait_replicas(serving, 2)


def test_integrations_are_made_once_their_definitions_are_there(
    objects: Objects, definitions: Definitions
) -> None:
    picker = {"networking": {"inferencePool": {"endpointPicker": {"name": "picker"}}}}
    serving = Serving.create(objects, "a", SPEC, {"monitoring": {"podMonitor": True}}, picker)
    definitions.install(Integration.POD_MONITOR)
    definitions.install(Integration.INFERENCE_POOL)

    assert serving.wait_reason("IntegrationsReady", "Created")["status"] == "True"
    monitor, pool = objects.get("PodMonitor", "a"), objects.get("InferencePool", "a")
    assert monitor["spec"]["selector"]["matchLabels"] == pool["spec"]["selector"]["matchLabels"]
