"""Makes the children as rendered: server-side apply of what drifted, deletion of what is no longer wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from dllm_operator.cluster.cluster_view import REPLICA_OWNERS, ClusterView
from dllm_operator.cluster.kinds import BY_KIND
from dllm_operator.cluster.kube import FIELD_MANAGER, Kind, Kube, KubeError
from dllm_operator.cluster.labels import SPEC_HASH
from dllm_operator.cluster.observe import ChildKey, Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.plan import PoolPlan
from dllm_operator.writing.drift import has_drifted, with_hash

log = structlog.get_logger(__name__)

REPLICAS_MANAGER = (
    "dllm-operator-replicas"  # holds spec.replicas of autoscaled Deployments, and never changes it
)
LATE_KINDS = ("Deployment", "ScaledObject")


class ChildConflictError(Exception):
    """A child's name is taken by an object that is not this resource's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``restored`` are children that someone else had edited."""

    problems: tuple[str, ...] = ()
    restored: tuple[ChildKey, ...] = ()


class Applier:
    """Writes through ``view``, so that the next look sees what was written."""

    def __init__(self, kube: Kube, view: ClusterView) -> None:
        self._kube = kube
        self._view = view
        self._settled: dict[str, tuple[str, str]] = {}  # uid -> resource version and hash as applied

    async def sync(
        self, resource: Resource, manifests: Iterable[Manifest], pools: Iterable[PoolPlan]
    ) -> Outcome:
        """Apply and prune; what the API server refused comes back as messages, the rest is done."""
        initial = {pool.deployment: pool.initial_replicas for pool in pools}
        wanted = [
            (ChildKey(manifest["kind"], manifest["metadata"]["name"]), manifest) for manifest in manifests
        ]
        problems: list[str] = []
        restored: list[ChildKey] = []
        # Pods need what the others hold, and a pod refused for want of it is retried late.
        for is_late in (False, True):
            stage = [(key, manifest) for key, manifest in wanted if (key.kind in LATE_KINDS) is is_late]
            outcomes = await asyncio.gather(
                *(self._ensure(resource, manifest, initial.get(key.name, 1)) for key, manifest in stage),
                return_exceptions=True,
            )
            for (key, _), outcome in zip(stage, outcomes, strict=True):
                if isinstance(outcome, KubeError | ChildConflictError):
                    problems.append(f"{key.kind} {key.name}: {outcome}")
                elif isinstance(outcome, BaseException):
                    raise outcome
                elif outcome:
                    restored.append(key)
        problems += await self._prune(resource, {key for key, _ in wanted})
        return Outcome(tuple(problems), tuple(restored))

    async def _ensure(self, resource: Resource, manifest: Manifest, initial_replicas: int) -> bool:
        """Whether someone else's edit was undone."""
        kind, name = BY_KIND[manifest["kind"]], manifest["metadata"]["name"]
        table = self._view.children[kind.kind]
        live = table.objects.get((resource.namespace, name))
        if live is None:
            found = await self._kube.get(kind, resource.namespace, name)
            if found is not None:
                live = table.trim(found)
                if _is_owned(live, resource):  # no event tells of the end of another one
                    table.put(found)
        if live is not None and not _is_owned(live, resource):
            await self._refuse(kind, resource, live)
        wanted = with_hash(manifest)
        digest = wanted["metadata"]["annotations"][SPEC_HASH]
        if live is not None:
            if self._settled.get(live["metadata"]["uid"]) == (live["metadata"]["resourceVersion"], digest):
                return False
            if not has_drifted(wanted, live):
                return False
        is_autoscaled = kind.kind == "Deployment" and "replicas" not in manifest["spec"]
        if is_autoscaled and live is not None and FIELD_MANAGER in live.get(REPLICA_OWNERS, ()):
            await self._hold_replicas(kind, live, live["spec"]["replicas"])
        applied = await self._kube.apply(kind, wanted)
        log.info("applied", kind=kind.kind, namespace=resource.namespace, name=name, is_new=live is None)
        if is_autoscaled and live is None and initial_replicas != 1:
            applied = await self._hold_replicas(kind, applied, initial_replicas)
        table.put(applied)
        self._settled[applied["metadata"]["uid"]] = (applied["metadata"]["resourceVersion"], digest)
        return live is not None and live["metadata"].get("annotations", {}).get(SPEC_HASH) == digest

    async def _hold_replicas(self, kind: Kind, live: Manifest, replicas: int) -> Manifest:
        """Another manager takes the field before the main one lets go of it: an unowned one would fall to
        1.
        """
        metadata = live["metadata"]
        manifest = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "spec": {"replicas": replicas},
        }
        return await self._kube.apply(kind, manifest, field_manager=REPLICAS_MANAGER)

    async def _refuse(self, kind: Kind, resource: Resource, live: Manifest) -> None:
        metadata = live["metadata"]
        references = metadata.get("ownerReferences", ())
        if any(
            r["kind"] == resource.owner_reference["kind"] and r["name"] == resource.name for r in references
        ):
            # Of a former resource of this name: the garbage collector is about to delete it.
            await self._kube.delete(kind, resource.namespace, metadata["name"], uid=metadata["uid"])
            raise ChildConflictError("belongs to a deleted resource of this name; waiting until it is gone")
        raise ChildConflictError(
            "exists and does not belong to this DLLMDeployment: delete or rename it, or rename the resource"
        )

    async def _prune(self, resource: Resource, wanted: set[ChildKey]) -> list[str]:
        """Messages of what could not be deleted."""
        owner, problems = (resource.namespace, resource.name), []
        for kind_name, table in self._view.children.items():
            for name, live in list(table.owned(owner).items()):
                is_going = "deletionTimestamp" in live["metadata"]
                if ChildKey(kind_name, name) in wanted or is_going or not _is_owned(live, resource):
                    continue
                uid = live["metadata"]["uid"]
                try:
                    await self._kube.delete(BY_KIND[kind_name], resource.namespace, name, uid=uid)
                except KubeError as error:
                    problems.append(f"{kind_name} {name}: {error}")
                    continue
                self._settled.pop(uid, None)
                log.info("deleted", kind=kind_name, namespace=resource.namespace, name=name)
        return problems


def _is_owned(live: Manifest, resource: Resource) -> bool:
    references = live["metadata"].get("ownerReferences", ())
    return any(reference["uid"] == resource.uid for reference in references)
