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
from dllm_operator.kinds import DEPLOYMENT, RESOURCE
from dllm_operator.kube import Kind, Kube
from dllm_operator.labels import INSTANCE

NAMESPACE = Kind("v1", "Namespace", "namespaces", is_namespaced=False)
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class OperatorFigures:
    """Seconds are wall time; the delay runs from the answer to the write of a spec to its Deployment's new
    template.
    """

    resources: int
    settle_seconds: float
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
            "podTemplate": {"nodeSelector": node_selector},
        },
    }


async def measure(
    kube: Kube, namespace: str, resources: int, node_selector: dict[str, str]
) -> OperatorFigures:
    """Create, wait until every Deployment exists, change every spec, wait until every Deployment follows."""
    names = [f"bench-{index:03d}" for index in range(resources)]
    started = time.monotonic()
    await _write(kube, [manifest(name, namespace, node_selector, 8) for name in names])
    await _followed(kube, namespace, dict.fromkeys(names, "8"))
    settle_seconds = time.monotonic() - started
    written = await _write(kube, [manifest(name, namespace, node_selector, 9) for name in names])
    followed = await _followed(kube, namespace, dict.fromkeys(names, "9"))
    delays = sorted(followed[name] - written[name] for name in names)
    return OperatorFigures(
        resources,
        round(settle_seconds, 2),
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


async def _followed(kube: Kube, namespace: str, wanted: dict[str, str]) -> dict[str, float]:
    """When each resource's Deployment was first seen with the wanted setting."""
    seen: dict[str, float] = {}
    while len(seen) < len(wanted):
        listed = await kube.list(DEPLOYMENT, namespace)
        now = time.monotonic()
        for body in listed:
            name = body["metadata"]["labels"][INSTANCE]
            env = body["spec"]["template"]["spec"]["containers"][0]["env"]
            value = next((item["value"] for item in env if item["name"] == "DLLM_MAX_NUM_SEQS"), None)
            if name in wanted and value == wanted[name]:
                seen.setdefault(name, now)
        await asyncio.sleep(POLL_SECONDS)
    return seen


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
