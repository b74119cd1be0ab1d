"""Claims that one pod or the pods of one node can mount, and what cannot be made of them."""

from __future__ import annotations

from typing import Any

import pytest
from dllm_operator.planning.plan import Plan, plan

from tests.operator.objects import by_kind, make_gpu, make_observed, make_resource, make_spec, render_resource

TYPES = (make_gpu("NVIDIA-L4"), make_gpu("NVIDIA-L40S"))
HUB = {"source": "org/model"}
SIZED = {"model": HUB | {"cache": {"size": "10Gi"}}}
SHARED = {"model": HUB | {"cache": {"size": "10Gi", "accessMode": "ReadWriteMany"}}}
OWN = {"model": HUB | {"cache": {"claimName": "mine"}}}
WEIGHTS = {"model": {"source": "pvc://mine/model"}}
ONE_POOL = {"gpuPools": [{"name": "a", "product": "L4"}]}
SCALED = {
    "autoscaling": {
        "maxReplicas": 4,
        "metric": {"target": 4},
        "prometheusAddress": "http://p:9090",
    }
}
SURGE = {"podTemplate": {"rollingUpdate": {"mode": "Fixed"}}}
ONCE, ONE_POD = ("ReadWriteOnce",), ("ReadWriteOncePod",)


def make_plan(modes: tuple[str, ...] | None, **spec: Any) -> Plan:
    claims = {"mine": modes} if modes is not None else {}
    return plan("chat", make_spec(**spec), make_observed(gpu_types=TYPES, claims=claims))


@pytest.mark.parametrize(
    ("spec", "modes", "says"),
    [
        pytest.param(SHARED, None, None, id="shared by all nodes"),
        pytest.param(SIZED | ONE_POOL | {"replicas": 3}, None, None, id="three pods on one node"),
        pytest.param(SIZED, None, "claim chat-cache is ReadWriteOnce", id="two types of GPU were found"),
        pytest.param(SIZED | {"replicas": 1}, None, None, id="the second pool gets no pod"),
        pytest.param(SIZED | SCALED, None, "pools l4, l40s have nodes of their own", id="two scaled pools"),
        pytest.param(OWN, None, None, id="a claim that does not exist yet"),
        pytest.param(OWN, ONCE, "claim mine is ReadWriteOnce", id="a claim of the author's"),
        pytest.param(WEIGHTS, ONCE, "claim mine is ReadWriteOnce", id="weights on a claim"),
        pytest.param(WEIGHTS, ("ReadOnlyMany",), None, id="weights that all nodes may read"),
        pytest.param(WEIGHTS, (*ONCE, "ReadWriteMany"), None, id="the widest mode counts"),
        pytest.param(WEIGHTS | ONE_POOL, ONE_POD, None, id="one pod and its volume"),
        pytest.param(WEIGHTS | ONE_POOL | {"replicas": 2}, ONE_POD, "up to 2", id="two pods, one may"),
        pytest.param(WEIGHTS | ONE_POOL | SCALED, ONE_POD, "up to 4", id="four may come"),
        pytest.param(WEIGHTS | ONE_POOL | SURGE, ONE_POD, "maxSurge 1 adds another", id="one more to roll"),
    ],
)
def test_what_a_claim_does_not_allow_is_said_with_its_remedy(
    spec: dict[str, Any], modes: tuple[str, ...] | None, says: str | None
) -> None:
    problem = make_plan(modes, **spec).problem

    assert (problem is None) == (says is None)
    assert says is None or says in (problem or "")


def test_pods_of_a_volume_of_one_node_stay_together_beside_what_their_author_wants() -> None:
    own = {"nodeAffinity": {}, "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    resource = make_resource(device="cpu", podTemplate={"affinity": own}, **SIZED)

    [deployment] = by_kind(render_resource(resource), "Deployment")
    affinity = deployment["spec"]["template"]["spec"]["affinity"]

    assert affinity.keys() == own.keys()
    [together] = affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert together["topologyKey"] == "kubernetes.io/hostname"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert together["labelSelector"]["matchLabels"].items() <= labels.items()


def test_pods_of_a_volume_of_all_nodes_go_anywhere() -> None:
    [deployment] = by_kind(render_resource(make_resource(device="cpu", **SHARED)), "Deployment")

    assert "affinity" not in deployment["spec"]["template"]["spec"]
