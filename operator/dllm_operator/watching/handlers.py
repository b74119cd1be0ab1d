"""kopf's watch events -> the cluster view and the work queue. Nothing is decided here.

Only low-level event handlers and indices are used: they write neither finalizers nor annotations, so a
resource can always be deleted, operator or not. kopf fills indices from every kind's list
before it calls the first handler, so the view is filled from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import kopf
import structlog

from dllm_operator.api.v1alpha1 import GROUP
from dllm_operator.cluster.cluster_view import LOST_SECONDS, ClusterView, ResourceKey, Table, owner_of
from dllm_operator.cluster.kinds import (
    AUTOSCALER,
    CHILDREN,
    CLAIM,
    DEFINITION,
    INTEGRATION_CHILDREN,
    NODE,
    POD,
    RESOURCE,
    definition_name,
)
from dllm_operator.cluster.kube import Kind
from dllm_operator.cluster.labels import MANAGED_SELECTOR
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.pod_setup import SET_UP_SECONDS, is_set_up
from dllm_operator.watching.kopf_storage import NoDiffBase, NoProgress

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 0.25  # children change in bursts; one reconcile answers a burst
SERVER_SECONDS = 290  # a watch request ends by itself and starts anew
CLIENT_SECONDS = 320
WATCHED_SECONDS = 10.0  # after its definition came, a kind is watched
DELETED = "DELETED"

Wake = Callable[[ResourceKey, float], None]


def operator_settings(settings: kopf.OperatorSettings) -> None:
    """Watches that end and restart, no Events from logs, no peering, our names on what kopf might store."""
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.watching.server_timeout = SERVER_SECONDS
    settings.watching.client_timeout = CLIENT_SECONDS
    settings.watching.connect_timeout = 10.0
    settings.networking.request_timeout = 30.0
    settings.persistence.finalizer = f"{GROUP}/kopf"
    settings.persistence.progress_storage = NoProgress()
    settings.persistence.diffbase_storage = NoDiffBase()
    for kind in (POD, *CHILDREN):
        if kind is CLAIM:  # of resources' authors as well: how many nodes may mount them
            continue
        group, _, _ = kind.api_version.rpartition("/")
        settings.watching.label_selectors[group, kind.plural] = MANAGED_SELECTOR


class Handlers:
    """Registers the handlers; ``wake`` queues a resource after some seconds, ``on_event`` counts an event by
    kind, ``on_fault`` an object that could not be understood, which keeps no other one from being seen.
    """

    def __init__(
        self, view: ClusterView, wake: Wake, on_event: Callable[[str], None], on_fault: Callable[[], None]
    ) -> None:
        self._view = view
        self._wake = wake
        self._on_event = on_event
        self._on_fault = on_fault
        self._is_listed = False  # kopf calls the first handler when every list has been indexed

    def register(self, registry: kopf.OperatorRegistry) -> None:
        kopf.on.login(registry=registry)(_log_in)
        self._watch(registry, RESOURCE, self._view.resources.put, self._resource_changed)
        self._watch(registry, NODE, self._view.put_node, self._node_changed)
        self._watch(registry, AUTOSCALER, self._view.put_autoscaler, self._autoscaler_changed)
        self._watch(registry, DEFINITION, self._view.put_definition, self._definition_changed)
        self._watch(registry, POD, self._view.pods.put, self._pod_changed)
        for kind in CHILDREN:
            table = self._view.children[kind.kind]
            changed = self._claim_changed if kind is CLAIM else self._owned_changed
            self._watch(registry, kind, table.put, partial(changed, table))

    def _watch(
        self,
        registry: kopf.OperatorRegistry,
        kind: Kind,
        put: Callable[[Manifest], bool],
        changed: Callable[[Manifest, bool], None],
    ) -> None:
        """``put`` stores an object and says whether it is news; then ``changed(body, is_deleted)`` wakes."""
        group, _, version = kind.api_version.rpartition("/")
        has_index = kind not in INTEGRATION_CHILDREN

        async def index(body: kopf.Body, **_: Any) -> None:
            manifest: Manifest = dict(body)
            with self._guard(kind, manifest):
                if put(manifest) and self._is_listed:
                    changed(manifest, False)
            self._on_event(kind.kind)

        def is_wanted(type: str | None, **_: Any) -> bool:  # noqa: A002 - kopf's name
            """kopf's handlers cost more than all that is done here, so the index does what it sees alone."""
            return type in (None, DELETED) or not (has_index and self._is_listed)

        async def handle(event: kopf.RawEvent, **_: Any) -> None:
            self._is_listed = True
            manifest: Manifest = dict(event["object"])
            is_deleted = event["type"] == DELETED
            with self._guard(kind, manifest):
                if is_deleted or put(manifest) or has_index:
                    changed(manifest, is_deleted)

        kopf.on.event(
            group, version, kind.plural, id=f"see-{kind.plural}", registry=registry, when=is_wanted
        )(handle)
        if has_index:
            kopf.index(group, version, kind.plural, id=f"list-{kind.plural}", registry=registry)(index)

    @contextmanager
    def _guard(self, kind: Kind, body: Manifest) -> Iterator[None]:
        try:
            yield
        except Exception:
            metadata = body.get("metadata") or {}
            key = (metadata.get("namespace"), metadata.get("name"))
            log.exception("object not understood", kind=kind.kind, key=key)
            self._on_fault()

    def _resource_changed(self, body: Manifest, is_deleted: bool) -> None:
        if is_deleted:
            self._view.resources.drop(body)
        else:
            self._wake((body["metadata"]["namespace"], body["metadata"]["name"]), 0.0)

    def _owned_changed(self, table: Table, body: Manifest, is_deleted: bool) -> None:
        if is_deleted:
            table.drop(body)
        owner = owner_of(body)
        if owner is not None:
            self._wake(owner, SETTLE_SECONDS)

    def _claim_changed(self, table: Table, body: Manifest, is_deleted: bool) -> None:
        self._owned_changed(table, body, is_deleted)
        if owner_of(body) is None:
            self._wake_all(body["metadata"]["namespace"])

    def _pod_changed(self, body: Manifest, is_deleted: bool) -> None:
        self._owned_changed(self._view.pods, body, is_deleted)
        owner = owner_of(body)
        if owner is not None and not is_deleted and not is_set_up(body):
            loop = asyncio.get_running_loop()
            loop.call_later(SET_UP_SECONDS + SETTLE_SECONDS, self._wake, owner, 0.0)  # is it by then?

    def _node_changed(self, body: Manifest, is_deleted: bool) -> None:
        if is_deleted:
            self._view.drop_node(body["metadata"]["name"])
        self._wake_all()
        if body["metadata"]["name"] in self._view.unready_since:
            asyncio.get_running_loop().call_later(LOST_SECONDS, self._wake_all)  # is it still?

    def _autoscaler_changed(self, body: Manifest, is_deleted: bool) -> None:
        if is_deleted:
            self._view.drop_autoscaler(body)
        self._wake_all(body["metadata"]["namespace"])

    def _definition_changed(self, body: Manifest, is_deleted: bool) -> None:
        if is_deleted:
            self._view.definitions.discard(body["metadata"]["name"])
        self._wake_all()
        for kind in INTEGRATION_CHILDREN:
            if definition_name(kind) == body["metadata"]["name"]:
                asyncio.get_running_loop().call_later(WATCHED_SECONDS, self._look_again, kind)

    def _look_again(self, kind: Kind) -> None:
        """What was written before kopf watched a new kind may be gone without an event."""
        self._view.children[kind.kind].clear()
        self._wake_all()

    def _wake_all(self, namespace: str | None = None) -> None:
        for key in self._view.resource_keys():
            if namespace in (None, key[0]):
                self._wake(key, SETTLE_SECONDS)


async def _log_in(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """The pod's service account, else the current kubeconfig."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
