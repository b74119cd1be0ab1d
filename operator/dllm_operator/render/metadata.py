"""What every child's manifest begins with."""

from __future__ import annotations

from typing import Any

from dllm_operator.cluster.labels import child_labels
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.resource import Resource


def manifest(
    api_version: str, kind: str, resource: Resource, name: str, *, pool: str | None = None, **body: Any
) -> Manifest:
    """A child named ``name`` in the resource's namespace, labelled and owned by it."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": resource.namespace,
            "labels": child_labels(resource.name, pool),
            "ownerReferences": [resource.owner_reference],
        },
        **body,
    }
