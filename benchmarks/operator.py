"""How fast and how quiet the operator is with many resources: `python -m benchmarks.operator`.

Needs a cluster with a running operator (the current KUBECONFIG) and nodes whose pods cost nothing (KWOK's).
Makes `--resources` DLLMDeployments, changes all of them at once, and then leaves them alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from dllm_operator.api.v1alpha1 import API_VERSION, KIND
from dllm_operator.cluster.kinds import RESOURCE
from dllm_operator.cluster.kube import Kind, Kube
from dllm_operator.cluster.labels import INSTANCE
from kubernetes.aio.client import AppsV1Api
from kubernetes.aio.watch import Watch

NAMESPACE = Kind("v1", "Namespace", "namespaces", is_namespaced=False)
SETTLE_SECONDS = 10.0  # between creation and change, for the pods


@dataclass(frozen=True, slots=True)
class OperatorFigures:
    """Seconds are wall time; the delay runs from the answer to the write of a spec to its Deployment's new
    template.
    """

    resources: int
    create_seconds: float
    delay_p50_seconds: float
    delay_p95_seconds: float
    delay_max_seconds: float


def manifest(name: str, namespace: str, node_selector: dict[str, str], max_num_seqs: int) -> dict[str, Any]:
    """A resource on the embedded model whose only changing setting is ``maxNumSeqs``."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"source": "embedded"},
            "device": "cpu",
            "engine": {"maxNumSeqs": max_num_seqs},
            "podTemplate": {"nodeSelector": node_selector, "tolerations": [{"operator": "Exists"}]},
        },
    }


class Followers:
    """Watches the Deployments; when each resource's was first seen with a setting."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._seen: dict[tuple[str, str], float] = {}
        self._changed = asyncio.Event()

    async def watch(self) -> None:
        """Until cancelled."""
        api = AppsV1Api(self._kube.client)
        async with Watch(return_type="object") as watch:  # type: ignore[no-untyped-call]
            async for event in watch.stream(api.list_namespaced_deployment, self._namespace):
                body = event["raw_object"]
                env = body["spec"]["template"]["spec"]["containers"][0]["env"]
                value = next((item["value"] for item in env if item["name"] == "DLLM_MAX_NUM_SEQS"), "")
                self._seen.setdefault((body["metadata"]["labels"][INSTANCE], value), time.monotonic())
                self._changed.set()

    async def all_have(self, names: list[str], value: str) -> dict[str, float]:
        """Waits for the last one; the time of each by name."""
        while not all((name, value) in self._seen for name in names):
            self._changed.clear()
            await self._changed.wait()
        return {name: self._seen[name, value] for name in names}


async def measure(
    kube: Kube, namespace: str, resources: int, node_selector: dict[str, str]
) -> OperatorFigures:
    """Create, wait until every Deployment exists, change every spec, wait until every Deployment follows."""
    names = [f"bench-{index:03d}" for index in range(resources)]
    followers = Followers(kube, namespace)
    watching = asyncio.create_task(followers.watch())
    try:
        started = time.monotonic()
        await _write(kube, [manifest(name, namespace, node_selector, 8) for name in names])
        created = max((await followers.all_have(names, "8")).values()) - started
        await asyncio.sleep(SETTLE_SECONDS)
        written = await _write(kube, [manifest(name, namespace, node_selector, 9) for name in names])
        followed = await followers.all_have(names, "9")
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    delays = sorted(followed[name] - written[name] for name in names)
    return OperatorFigures(
        resources,
        round(created, 2),
        round(delays[len(delays) // 2], 3),
        round(delays[int(len(delays) * 0.95)], 3),
        round(delays[-1], 3),
    )


async def _write(kube: Kube, manifests: list[dict[str, Any]]) -> dict[str, float]:
    """All as fast as one client can; the time of each answer by name."""
    answered = {}
    for body in manifests:
        await kube.apply(RESOURCE, body, field_manager="benchmark")
        answered[body["metadata"]["name"]] = time.monotonic()
    return answered


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resources", type=int, default=100)
    parser.add_argument("--namespace", default="dllm-benchmark", help="must not exist; deleted at the end")
    parser.add_argument("--node-selector", default="type=kwok", metavar="LABEL=VALUE")
    options = parser.parse_args()
    key, _, value = options.node_selector.partition("=")
    kube = await Kube.connect()
    try:
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": options.namespace, "namespace": ""},
        }
        created = await kube.create(NAMESPACE, namespace)
        try:
            figures = await measure(kube, options.namespace, options.resources, {key: value})
        finally:
            uid = created["metadata"]["uid"]
            await kube.delete(NAMESPACE, "", options.namespace, uid=uid)
        print(json.dumps(asdict(figures), indent=2))
    finally:
        await kube.close()


if __name__ == "__main__":
    asyncio.run(main())
