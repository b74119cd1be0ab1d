"""The operator's own pods: their metrics, and what they wrote according to the API server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import RELEASE_NAMESPACE

SERVICE_ACCOUNT = f"system:serviceaccount:{RELEASE_NAMESPACE}:dllm-operator"
SELECTOR = "app.kubernetes.io/name=dllm-operator,app.kubernetes.io/component!=test"
WRITES = ("create", "update", "patch", "delete", "deletecollection")


def pod_names(cluster: Cluster) -> list[str]:
    """Of the pods that are not on their way out."""
    pods = cluster.list("pods", RELEASE_NAMESPACE, SELECTOR)
    return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def metric(cluster: Cluster, pod: str, name: str) -> float:
    """The sum of a metric's samples on one pod."""
    text = cluster.raw(f"/api/v1/namespaces/{RELEASE_NAMESPACE}/pods/{pod}:8080/proxy/metrics")
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == name)


def leaders(cluster: Cluster) -> list[str]:
    return [pod for pod in pod_names(cluster) if metric(cluster, pod, "dllm_operator_is_leader") == 1]


def kill(cluster: Cluster, pod: str) -> None:
    """By force: the kubelet gives it a second, and a pod of the same Deployment comes in its place."""
    stop(cluster, pod, "--grace-period=0", "--force")


def stop(cluster: Cluster, pod: str, *flags: str) -> None:
    """One that is already gone is fine."""
    cluster.kubectl(
        "delete", "pod", pod, "-n", RELEASE_NAMESPACE, "--wait=false", "--ignore-not-found", *flags
    )


def writes_since(cluster: Cluster, moment: datetime, account: str = SERVICE_ACCOUNT) -> list[str]:
    """`verb resource namespace/name` of every write of the operator but those of its Lease; dry runs, which
    change nothing but cost as much, among them."""
    return [
        f"{entry['verb']} {target['resource']} {target.get('namespace', '')}/{target.get('name', '')}"
        for entry, target in _requests(cluster, account)
        if entry["verb"] in WRITES
        and target["resource"] != "leases"
        and datetime.fromisoformat(entry["requestReceivedTimestamp"]) >= moment
    ]


def wait_until_quiet(
    cluster: Cluster, seconds: float, accounts: Sequence[str] = (SERVICE_ACCOUNT,), *, most: int = 3
) -> datetime:
    """The start of the first time of that length without a write of the accounts; gives up after ``most``."""
    deadline = time.monotonic() + most * seconds
    start = datetime.now(UTC)
    while datetime.now(UTC) - start < timedelta(seconds=seconds) and time.monotonic() < deadline:
        time.sleep(1)
        if any(writes_since(cluster, start, account) for account in accounts):
            start = datetime.now(UTC)
    return start


def _requests(cluster: Cluster, account: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    with cluster.audit_log().open() as lines:
        for line in lines:
            if f'"{account}"' in line:
                entry = json.loads(line)
                if entry.get("stage") == "ResponseComplete" and "objectRef" in entry:
                    yield entry, entry["objectRef"]
