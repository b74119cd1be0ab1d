"""Templates that a Deployment keeps or goes back to, in the place of the one rendered."""

from __future__ import annotations

from typing import Any

from dllm_operator.cluster.kinds import REPLICA_SET
from dllm_operator.cluster.kube import Kube
from dllm_operator.cluster.observe import Manifest
from dllm_operator.planning.rollout import REVISION, TEMPLATE


def with_template(manifest: Manifest, template: Manifest) -> Manifest:
    """A Deployment's manifest with the template of a live object."""
    metadata: dict[str, Any] = dict(template.get("metadata") or {})
    metadata.pop("creationTimestamp", None)
    labels = dict(metadata.get("labels") or {})
    labels.pop(TEMPLATE, None)
    kept = template | {"metadata": metadata | {"labels": labels}}
    return manifest | {"spec": manifest["spec"] | {"template": kept}}


async def former_template(kube: Kube, live: Manifest, revision: str) -> Manifest | None:
    """Of the Deployment's ReplicaSet of that revision; None where it is gone."""
    metadata = live["metadata"]
    selector = ",".join(f"{name}={value}" for name, value in live["spec"]["selector"]["matchLabels"].items())
    for found in await kube.list(REPLICA_SET, metadata["namespace"], selector):
        owners = [owner["uid"] for owner in found["metadata"].get("ownerReferences") or ()]
        annotations = found["metadata"].get("annotations") or {}
        if metadata["uid"] in owners and annotations.get(REVISION) == revision:
            template: Manifest = found["spec"]["template"]
            return template
    return None
