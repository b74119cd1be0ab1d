"""Pools found from the labels of GPU nodes, as nodes come, change and go."""

from __future__ import annotations

import pytest
from dllm_operator.cluster.pools import PRODUCT, pool_name

from tests.cluster.cluster import Cluster
from tests.cluster.resources import Fields, Manifest, Objects, Serving, eventually
from tests.cluster.simulated_nodes import A10G, A100_MIG, B200, GPU, H200, L40S_SHARED, Gpu, SimulatedNodes

pytestmark = pytest.mark.cluster

# Real GPU nodes of the cluster get pools as well; this keeps pods off nodes that would start them.
SPEC: Fields = {"podTemplate": {"nodeSelector": {"type": "kwok"}}}
TYPES = {"a10g": A10G, "l40s-shared": L40S_SHARED, "a100-sxm4-80gb-mig-1g-10gb": A100_MIG}


@pytest.fixture(autouse=True)
def types(nodes: SimulatedNodes) -> None:
    """Three GPU types: a whole GPU, a time-sliced one, a MIG slice."""
    for pool, gpu in TYPES.items():
        nodes.add(f"gpu-{pool}", gpu)


def products(cluster: Cluster) -> set[str]:
    """Of all nodes there are."""
    labels = [node["metadata"]["labels"] for node in Objects(cluster).list("Node")]
    return {label[PRODUCT] for label in labels if PRODUCT in label}


def deployments(serving: Serving) -> set[str]:
    prefix = f"{serving.name}-"
    return {name.removeprefix(prefix) for kind, name in serving.children() if kind == "Deployment"}


def pool_children(serving: Serving, pool: str) -> set[tuple[str, str]]:
    wanted = {("Deployment", f"{serving.name}-{pool}"), ("ConfigMap", f"{serving.name}-{pool}-tuning")}
    return wanted & serving.children()


def pod_of(serving: Serving, pool: str) -> Manifest:
    """The only pod of a pool, once it is Ready."""

    def check() -> Manifest:
        found = {state["name"]: state for state in serving.status().get("pools", ())}
        assert found.get(pool, {}).get("readyReplicas") == 1, found
        pods = [p for p in serving.pods() if p["metadata"]["labels"]["serving.dllm.dev/pool"] == pool]
        assert len(pods) == 1, pods
        return pods[0]

    return eventually(check)


def check_pools(serving: Serving, wanted: set[str]) -> None:
    assert deployments(serving) == wanted


def check_setting(serving: Serving, pool: str, name: str, value: str) -> None:
    assert serving.environment(pool).get(name) == value


def check_children(serving: Serving, pool: str, count: int) -> None:
    assert len(pool_children(serving, pool)) == count


def test_each_gpu_type_gets_its_deployment_on_its_own_nodes(cluster: Cluster, objects: Objects) -> None:
    serving = Serving.create(objects, "a", SPEC, {"engine": {"maxNumSeqs": 4}})

    eventually(lambda: check_pools(serving, {pool_name(product) for product in products(cluster)}))
    for pool, gpu in TYPES.items():
        pod = serving.deployment(pool)["spec"]["template"]["spec"]
        container = pod["containers"][0]
        assert pod["nodeSelector"] == {"type": "kwok", PRODUCT: gpu.product}
        assert {"key": GPU, "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
        assert container["resources"]["limits"] == {GPU: "1"}
        environment = serving.environment(pool)
        assert (environment["DLLM_DEVICE"], environment["DLLM_MAX_NUM_SEQS"]) == ("cuda", "4")
        assert environment.get("DLLM_GPU_MEMORY_LIMIT") == memory_limit(gpu)
        assert pod_of(serving, pool)["spec"]["nodeName"] == f"gpu-{pool}"
    found = {pool["name"]: pool for pool in serving.status()["pools"]}
    for pool, gpu in TYPES.items():
        assert (found[pool]["product"], found[pool]["memoryMib"]) == (gpu.product, gpu.memory_mib)


def memory_limit(gpu: Gpu) -> str | None:
    """Pods that take turns on a GPU share its memory as well; a MIG slice has its own."""
    return f"{gpu.memory_mib // gpu.shares}MiB" if gpu.shares > 1 else None


def test_a_pool_comes_with_the_first_node_of_its_type_and_goes_with_the_last(
    objects: Objects, nodes: SimulatedNodes
) -> None:
    serving = Serving.create(objects, "a", SPEC)
    pod_of(serving, "a10g")

    nodes.add("gpu-new", B200)

    assert pod_of(serving, "b200")["spec"]["nodeName"] == "gpu-new"
    assert serving.status()["pools"][-1]["name"] == "b200"

    nodes.add("gpu-new-too", B200)
    nodes.remove("gpu-new")
    serving.edit({"engine": {"maxNumSeqs": 4}})
    eventually(lambda: check_setting(serving, "b200", "DLLM_MAX_NUM_SEQS", "4"))

    nodes.remove("gpu-new-too")

    eventually(lambda: check_children(serving, "b200", 0))
    assert len(pool_children(serving, "a10g")) == 2


def test_a_relabelled_node_moves_to_another_pool(
    cluster: Cluster, objects: Objects, nodes: SimulatedNodes
) -> None:
    serving = Serving.create(objects, "a", SPEC)
    pod_of(serving, "a10g")

    cluster.kubectl("label", "node", "gpu-a10g", "--overwrite", f"{PRODUCT}={H200.product}")

    assert pod_of(serving, "h200")["spec"]["nodeName"] == "gpu-a10g"
    eventually(lambda: check_children(serving, "a10g", 0))

    nodes.relabel("gpu-a10g", {PRODUCT: A10G.product})

    pod_of(serving, "a10g")
    eventually(lambda: check_children(serving, "h200", 0))


def test_replicas_are_divided_over_the_pools_and_a_named_product_may_be_spelt_freely(
    objects: Objects, nodes: SimulatedNodes
) -> None:
    pools = [
        {"name": "sliced", "product": "nvidia l40s shared"},
        {"name": "mig", "product": "A100-SXM4-80GB-MIG-1g.10gb", "gpusPerReplica": 2},
        {"name": "later", "product": "NVIDIA B200", "replicas": 1, "engine": {"maxNumSeqs": 64}},
    ]
    serving = Serving.create(objects, "a", SPEC, {"gpuPools": pools, "replicas": 4})

    eventually(lambda: check_pools(serving, {"sliced", "mig", "later"}))
    replicas = [serving.deployment(pool)["spec"]["replicas"] for pool in ("sliced", "mig", "later")]
    assert replicas == [2, 1, 1]
    assert serving.environment("later")["DLLM_MAX_NUM_SEQS"] == "64"
    assert pod_of(serving, "mig")["spec"]["containers"][0]["resources"]["limits"] == {GPU: "2"}
    scheduled = serving.wait_reason("PoolsScheduled", "Unschedulable")
    assert "pool later" in scheduled["message"]

    nodes.add("gpu-later", B200)

    assert serving.wait_ready()["gpus"] == 2 + 2 + 1
    assert pod_of(serving, "later")["spec"]["nodeName"] == "gpu-later"


def test_a_cluster_without_the_gpu_says_which_label_it_looks_for(objects: Objects) -> None:
    pools = [{"name": "none", "product": "NVIDIA X9000"}]
    serving = Serving.create(objects, "a", SPEC, {"gpuPools": pools})

    ready = serving.wait_reason("Ready", "Unschedulable")

    assert "didn't match Pod's node affinity/selector" in ready["message"]
