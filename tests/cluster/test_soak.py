"""A soak: edits, deletions and kills of pods, operators, control plane and nodes under constant load.

What may happen to a request is said by `soak.py`. SOAK_SECONDS is how long events are begun, SOAK_SEED
repeats their order and the choice of their targets.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import RELEASE_NAMESPACE, Images
from tests.cluster.operator_pods import leaders, metric, wait_until_quiet, writes_since
from tests.cluster.resources import Objects, Serving
from tests.cluster.serving import SMALL
from tests.cluster.simulated_nodes import SimulatedNodes
from tests.cluster.soak import BESIDE, SERVING, deal, faults, figures
from tests.cluster.soak_run import (
    REPLICAS,
    SETTLED_SECONDS,
    LoadPod,
    Neighbourhood,
    PoolUnderLoad,
    Record,
    internal_errors,
    persist,
)

SECONDS = float(os.environ.get("SOAK_SECONDS", "90"))
SEED = int(os.environ.get("SOAK_SEED", random.randrange(2**32)))
LONGEST_OUTAGE_SECONDS = max(25.0, SECONDS / 6)
QUIET_SECONDS = 20 if SECONDS < 600 else 60
CALM_REQUESTS = 15  # before the first event and after the last
NODE, NAME = "simulated-soak", "soaked"
STANDING = {"configmap/kube-root-ca.crt", "serviceaccount/default"}  # of every namespace

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(SECONDS + 3 * SETTLED_SECONDS),
]


@pytest.fixture
def node(cluster: Cluster) -> Iterator[None]:
    if cluster.program is None:
        pytest.skip("only the program that the variable CLUSTER names can kill nodes and the control plane")
    with SimulatedNodes(cluster) as nodes:
        nodes.add(NODE)
        yield


def test_no_accepted_request_is_lost_and_nothing_is_left(
    cluster: Cluster, operator: Images, node: None, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "urllib3")
    print(f"SOAK_SEED={SEED} SOAK_SECONDS={SECONDS:.0f}")
    objects, record = Objects(cluster, namespace), Record()
    serving = Serving.create(objects, NAME, {"device": "cpu", "replicas": REPLICAS}, SMALL)
    pool = PoolUnderLoad(cluster, serving, record)
    beside = Neighbourhood(cluster, serving, record, NODE)
    pool.settle()
    standing = standing_objects(cluster)
    load = LoadPod(cluster, objects, operator.server, NAME)
    load.wait(CALM_REQUESTS)

    started = time.time()
    until = started + SECONDS
    try:
        with ThreadPoolExecutor(2) as threads:
            lanes = [
                threads.submit(pool.run, deal(SERVING, SEED, LONGEST_OUTAGE_SECONDS), until),
                threads.submit(beside.run, deal(BESIDE, SEED + 1, LONGEST_OUTAGE_SECONDS), until),
            ]
        for lane in lanes:
            lane.result()
        pool.settle()
        load.wait(CALM_REQUESTS)
    finally:
        for each in sorted(record.happenings, key=lambda each: each.began):
            print(f"{each.began - started:6.0f} s, {each.over - each.began:4.0f} s long: {each.event}")
        requests = load.stop()
        rows = figures(requests, record.happenings)
        print("\n".join(f"| {name} | {value} |" for name, value in rows.items()))

    assert faults(requests, record.happenings) == []
    for pod in serving.pods():
        persist(lambda name=pod["metadata"]["name"]: check_idle(cluster, namespace, name))
    for resource in beside.resources:
        persist(lambda resource=resource: check_followed(resource), SETTLED_SECONDS)
    leader = persist(lambda: only_leader(cluster))
    check_quiet(cluster)
    memory = metric(cluster, leader, "process_resident_memory_bytes") / 2**20
    print(f"| resident memory of the leader | {memory:.0f} MiB |")
    assert beside.internal_errors + internal_errors(cluster, leader) == 0

    for resource in (serving, *beside.resources):
        resource.delete()
    objects.delete("Pod", "soak-client", 0)
    persist(lambda: check_nothing_left(cluster, namespace), SETTLED_SECONDS)
    assert standing_objects(cluster) == standing
    check_quiet(cluster)


def check_idle(cluster: Cluster, namespace: str, pod: str) -> None:
    """No request and no page of one."""
    text = cluster.raw(f"/api/v1/namespaces/{namespace}/pods/{pod}:9464/proxy/metrics")
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(each.name, each.labels.get("state", "")): each.value for each in samples}
    held = {name: value for name, value in found.items() if name in HOLDING}
    assert held == dict.fromkeys(HOLDING, 0.0)


HOLDING = (("dllm_kv_pages", "used"), ("vllm:num_requests_running", ""), ("vllm:num_requests_waiting", ""))


def check_followed(resource: Serving) -> None:
    """Its newest spec has a status without a fault of the operator's, and all its children are there."""
    body = resource.read()
    status = body.get("status", {})
    assert status.get("observedGeneration") == body["metadata"]["generation"], status
    assert "InternalError" not in {each["reason"] for each in status["conditions"]}, status
    assert {kind for kind, _ in resource.children()} >= {
        *("ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount")
    }


def only_leader(cluster: Cluster) -> str:
    found = leaders(cluster)
    assert len(found) == 1, found
    return found[0]


def check_quiet(cluster: Cluster) -> None:
    quiet_from = wait_until_quiet(cluster, QUIET_SECONDS)
    assert writes_since(cluster, quiet_from) == []
    print(f"| writes of the operator in {QUIET_SECONDS} s, its Lease aside | 0 |")


def check_nothing_left(cluster: Cluster, namespace: str) -> None:
    assert names(cluster, namespace) == STANDING


def standing_objects(cluster: Cluster) -> set[str]:
    """In the operator's namespace, its Lease among them, but for the pods."""
    return {name for name in persist(lambda: names(cluster, RELEASE_NAMESPACE)) if name[:4] != "pod/"}


def names(cluster: Cluster, namespace: str) -> set[str]:
    """`kind/name` of every object that can be listed, but for Events and what metrics servers make up."""
    kinds = cluster.kubectl("api-resources", "--namespaced", "--verbs=list,delete", "-o", "name").split()
    chosen = ",".join(kind for kind in kinds if kind.partition(".")[0] != "events")
    return set(cluster.kubectl("get", chosen, "-n", namespace, "-o", "name").split())
