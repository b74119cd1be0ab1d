"""The status of a resource, written where the resource is still the one that was looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dllm_operator.api.v1alpha1 import API_VERSION, KIND
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.kinds import RESOURCE
from dllm_operator.cluster.kube import Kube
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.text import readable_document

STATUS_MANAGER = "dllm-operator-status"


async def write_status(kube: Kube, view: ClusterView, body: Manifest, status: Mapping[str, Any]) -> Manifest:
    """The resource with that status, without a request where it has it. ``KubeError`` 409 if the resource has
    changed since it was ``body``."""
    wanted = readable_document(dict(status))
    if wanted == body.get("status"):
        return body
    metadata = body["metadata"]
    identity = {field: metadata[field] for field in ("name", "namespace", "uid", "resourceVersion")}
    manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": identity, "status": wanted}
    written = await kube.apply(RESOURCE, manifest, subresource="status", field_manager=STATUS_MANAGER)
    view.resources.put(written)
    return written
