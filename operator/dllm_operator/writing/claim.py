"""Which operator looks after a resource: the one whose Lease its status names.

Of operators whose namespaces overlap one writes, the others wait until its Lease has not been renewed for a
while. A claim is a status write that fails where the resource has changed, so two cannot both succeed.
"""

from __future__ import annotations

from http import HTTPStatus

import structlog

from dllm_operator.cluster.cluster_view import ClusterView, ResourceKey
from dllm_operator.cluster.heartbeat import Heartbeats
from dllm_operator.cluster.kinds import RESOURCE
from dllm_operator.cluster.kube import Kube, KubeError
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.resource import manager_of
from dllm_operator.writing.resource_status import write_status

log = structlog.get_logger(__name__)

TRIES = 3


class Claims:
    """In the name of the Lease ``manager`` (``NAMESPACE/NAME``)."""

    def __init__(self, kube: Kube, view: ClusterView, manager: str, heartbeats: Heartbeats) -> None:
        self._kube, self._view, self._heartbeats = kube, view, heartbeats
        self.manager = manager

    async def hold(self, body: Manifest) -> Manifest | None:
        """The resource, claimed; None where it is another's or no longer there. ``KubeError`` if others keep
        changing it."""
        for tries_left in reversed(range(TRIES)):
            owner = manager_of(body)
            if owner == self.manager:
                return body
            if owner is not None and await self._heartbeats.is_alive(owner):
                return None
            status = (body.get("status") or {}) | {"managedBy": self.manager}
            try:
                claimed = await write_status(self._kube, self._view, body, status)
            except KubeError as error:
                if error.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND) or not tries_left:
                    raise
            else:
                log.info("claimed", key=_key(body), before=owner)
                return claimed
            found = await self._kube.get(RESOURCE, *_key(body))
            if found is None or "deletionTimestamp" in found["metadata"]:
                return None
            self._view.resources.put(found)
            body = found
        return None


def _key(body: Manifest) -> ResourceKey:
    return body["metadata"]["namespace"], body["metadata"]["name"]
