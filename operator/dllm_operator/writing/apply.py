"""Makes the children as rendered: server-side apply of what drifted, deletion of what is no longer wanted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import structlog

from dllm_operator.cluster.cluster_view import FOREIGN, REPLICA_OWNERS, ClusterView
from dllm_operator.cluster.field_owners import ForeignField, find
from dllm_operator.cluster.kinds import BY_KIND
from dllm_operator.cluster.kube import FIELD_MANAGER, Kind, Kube, KubeError
from dllm_operator.cluster.labels import POOL, SPEC_HASH, account_name
from dllm_operator.cluster.observe import ChildKey, Manifest
from dllm_operator.cluster.ownership import Owner, is_owned, owner
from dllm_operator.cluster.placement import is_leaving
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.plan import PoolPlan
from dllm_operator.writing.drift import has_drifted, with_hash
from dllm_operator.writing.refusal import is_about_the_spec, is_without_dry_run

log = structlog.get_logger(__name__)

REPLICAS_MANAGER = (
    "dllm-operator-replicas"  # holds spec.replicas of autoscaled Deployments, and never changes it
)
LATE_KINDS = ("Deployment", "ScaledObject")
ACCOUNT = "ServiceAccount"
MOST_UNDONE = 5  # times that one manager's edits of a template are undone, until the manifest changes
POD_NEEDS = (ACCOUNT, "ConfigMap", "PersistentVolumeClaim")  # refer to by name


@dataclass(frozen=True, slots=True)
class Edit:
    """Fields of a child that ``manager`` had set. ``is_left``: it sets them again and again, and is let."""

    child: ChildKey
    manager: str
    fields: tuple[str, ...]
    is_left: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """``in_the_way`` are objects of others that have the names of children, ``invalid`` is what the API
    server finds wrong with children; ``problems`` are its other refusals. ``restored`` are children that
    someone else had edited; ``edits`` what others had set in a pod template."""

    problems: tuple[str, ...] = ()
    restored: tuple[ChildKey, ...] = ()
    in_the_way: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()

    @property
    def all_problems(self) -> tuple[str, ...]:
        """Whatever another try may find gone."""
        return self.in_the_way + self.invalid + self.problems


@dataclass(frozen=True, slots=True)
class _Child:
    """``live`` is None where there is none yet."""

    kind: Kind
    manifest: Manifest  # with its hash
    live: Manifest | None

    @property
    def key(self) -> ChildKey:
        return ChildKey(self.kind.kind, self.manifest["metadata"]["name"])

    @property
    def digest(self) -> str:
        return str(self.manifest["metadata"]["annotations"][SPEC_HASH])

    @property
    def is_late(self) -> bool:
        return self.kind.kind in LATE_KINDS

    @property
    def foreign(self) -> tuple[ForeignField, ...]:
        """What others have set in the template; of one that the Deployment keeps it does not matter."""
        if self.live is None or "template" not in self.manifest.get("spec", {}):
            return ()
        is_kept = self.manifest["spec"]["template"]["spec"] is self.live["spec"]["template"]["spec"]
        fields: tuple[ForeignField, ...] = () if is_kept else self.live.get(FOREIGN, ())
        return fields

    @property
    def is_as_applied(self) -> bool:
        """Whether what was applied last is what is wanted now."""
        annotations = self.live["metadata"].get("annotations", {}) if self.live is not None else {}
        return bool(annotations.get(SPEC_HASH) == self.digest)

    @property
    def patch(self) -> Manifest:
        """What to apply: to this very object, not to another one that has taken its name meanwhile."""
        if self.live is None:
            return self.manifest
        return self.manifest | {"metadata": self.manifest["metadata"] | {"uid": self.live["metadata"]["uid"]}}


class Applier:
    """Writes through ``view``, so that the next look sees what was written."""

    def __init__(self, kube: Kube, view: ClusterView) -> None:
        self._kube = kube
        self._view = view
        self._settled: dict[str, tuple[str, str]] = {}  # uid -> resource version and hash as applied
        self._undone: Counter[tuple[str, str, str]] = Counter()  # by uid, hash and the edits' manager

    async def sync(
        self,
        resource: Resource,
        manifests: Iterable[Manifest],
        pools: Iterable[PoolPlan],
        *,
        is_settled: bool = True,
    ) -> Outcome:
        """Apply and prune, once every name is known to be the resource's and every change to be accepted.
        Until then nothing is changed. Until all is settled, pods of a former template need what they were
        made with."""
        children = await self._look_at_all(resource, manifests)
        stopped = await self._look_for_others(resource, children)
        if stopped is not None:
            return stopped
        drifted = [child for child in children if self._is_drifted(child)]
        refused = await self._rehearse(drifted)
        if refused:
            return _refused(refused)
        initial = {pool.deployment: pool.initial_replicas for pool in pools}
        restored: list[ChildKey] = []
        edits = [edit for child in drifted for edit in self._count_edits(child)]
        # Pods need what the others hold, and a pod refused for want of it is retried late.
        for is_late in (False, True):
            stage = [child for child in drifted if child.is_late is is_late]
            writes = [self._write(child, initial.get(child.key.name, 1)) for child in stage]
            refused = await _refusals(stage, writes)
            restored += [child.key for child in stage if child.key not in refused and _was_edited(child)]
            if refused:
                return _refused(refused, restored)
        kept = () if is_settled else POD_NEEDS
        problems = await self._prune(resource, {child.key for child in children}, kept)
        return Outcome(tuple(problems), tuple(restored), edits=tuple(edits))

    async def _look_at_all(self, resource: Resource, manifests: Iterable[Manifest]) -> list[_Child]:
        """The first error is raised once all have ended."""
        looks = (self._look(resource, manifest) for manifest in manifests)
        children = []
        for found in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(found, BaseException):
                raise found
            children.append(found)
        return children

    async def _look(self, resource: Resource, manifest: Manifest) -> _Child:
        manifest = self._with_own_account(resource, manifest)
        kind, name = BY_KIND[manifest["kind"]], manifest["metadata"]["name"]
        table = self._view.children[kind.kind]
        live = table.objects.get((resource.namespace, name))
        if live is None:
            found = await self._kube.get(kind, resource.namespace, name)
            if found is not None:
                live = table.trim(found)
                if is_owned(live, resource):  # no event tells of the end of another one
                    table.put(found)
        return _Child(kind, with_hash(manifest), live)

    def _with_own_account(self, resource: Resource, manifest: Manifest) -> Manifest:
        """A template of before, which a Deployment keeps or goes back to, may name an account of somebody
        else."""
        if manifest["kind"] != "Deployment":
            return manifest
        spec = manifest["spec"]
        pod = spec["template"]["spec"]
        own, named = account_name(resource.name), pod.get("serviceAccountName")
        live = self._view.children[ACCOUNT].objects.get((resource.namespace, named))
        if named == own or (live is not None and is_owned(live, resource)):
            return manifest
        pod = {field: value for field, value in pod.items() if field != "serviceAccount"}
        template = spec["template"] | {"spec": pod | {"serviceAccountName": own}}
        return manifest | {"spec": spec | {"template": template}}

    async def _look_for_others(self, resource: Resource, children: Iterable[_Child]) -> Outcome | None:
        """What to say where a name is not the resource's; None where all are."""
        in_the_way, going = [], []
        for child in children:
            if child.live is None:
                continue
            what = f"{child.key.kind} {child.key.name}"
            match owner(child.live, resource):
                case Owner.OTHER:
                    in_the_way.append(
                        f"{what} exists and does not belong to this DLLMDeployment: delete or rename it, or "
                        "rename the resource"
                    )
                case Owner.NAMESAKE:
                    uid = child.live["metadata"]["uid"]
                    await self._kube.delete(child.kind, resource.namespace, child.key.name, uid=uid)
                    going.append(
                        f"{what} belongs to a deleted resource of this name; waiting until it is gone"
                    )
        if in_the_way or going:
            return Outcome(problems=tuple(going), in_the_way=tuple(in_the_way))
        return None

    def _is_drifted(self, child: _Child) -> bool:
        if child.live is None:
            return True
        metadata = child.live["metadata"]
        if self._settled.get(metadata["uid"]) == (metadata["resourceVersion"], child.digest):
            return False
        foreign = child.foreign
        if child.is_as_applied and any(self._is_left(child, field.manager) for field in foreign):
            return False
        return bool(foreign) or has_drifted(child.manifest, child.live)

    def _is_left(self, child: _Child, manager: str) -> bool:
        assert child.live is not None  # noqa: S101 - it has fields of somebody's
        return self._undone[child.live["metadata"]["uid"], child.digest, manager] >= MOST_UNDONE

    def _count_edits(self, child: _Child) -> list[Edit]:
        """By manager."""
        found: dict[str, list[str]] = {}
        for field in child.foreign:
            found.setdefault(field.manager, []).append(str(field))
        edits = []
        for manager, fields in found.items():
            assert child.live is not None  # noqa: S101
            self._undone[child.live["metadata"]["uid"], child.digest, manager] += 1
            edits.append(Edit(child.key, manager, tuple(fields), self._is_left(child, manager)))
        return edits

    async def _remove_foreign(self, child: _Child) -> None:
        """What the manifest says of the same fields comes with its apply. Tests what stands there and not the
        version, which moves with every status. Where that has changed, an event of it is on its way: the
        next look tries again, as if this one had not."""
        assert child.live is not None  # noqa: S101
        metadata, root = child.live["metadata"], "/spec/template/spec"
        wanted, live = (body["spec"]["template"]["spec"] for body in (child.manifest, child.live))
        places = [find(live, field.path) for field in child.foreign if find(wanted, field.path) is None]
        surplus = dict(filter(None, places))
        if not surplus:
            return
        tests = [{"op": "test", "path": root + pointer, "value": value} for pointer, value in surplus.items()]
        pointers = sorted(surplus, key=_position, reverse=True)
        removals = [{"op": "remove", "path": root + pointer} for pointer in pointers]
        try:
            await self._kube.edit(child.kind, metadata["namespace"], metadata["name"], [*tests, *removals])
        except KubeError as error:
            if error.status not in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY):
                raise
            log.info("edit not undone yet", name=metadata["name"], error=str(error))
            for manager in {field.manager for field in child.foreign}:
                self._undone[metadata["uid"], child.digest, manager] -= 1

    async def _rehearse(self, children: Sequence[_Child]) -> dict[ChildKey, KubeError]:
        """What the API server would refuse. One write alone needs no dry run: it changes all or nothing."""
        if len(children) < 2:
            return {}
        tries = [self._kube.apply(child.kind, child.patch, is_dry_run=True) for child in children]
        refused = await _refusals(children, tries)
        return {key: error for key, error in refused.items() if not is_without_dry_run(error)}

    async def _write(self, child: _Child, initial_replicas: int) -> None:
        kind, live = child.kind, child.live
        is_autoscaled = kind.kind == "Deployment" and "replicas" not in child.manifest["spec"]
        if is_autoscaled and live is not None and FIELD_MANAGER in live.get(REPLICA_OWNERS, ()):
            await self._hold_replicas(kind, live, live["spec"]["replicas"])
        if child.foreign:
            await self._remove_foreign(child)
        if live is None and kind.kind == ACCOUNT:  # never joins one that somebody makes meanwhile
            written = await self._kube.create(kind, child.manifest)
        else:
            written = await self._kube.apply(kind, child.patch)
        namespace, name = child.manifest["metadata"]["namespace"], child.key.name
        log.info("applied", kind=kind.kind, namespace=namespace, name=name, is_new=live is None)
        if is_autoscaled and live is None and initial_replicas != 1:
            written = await self._hold_replicas(kind, written, initial_replicas)
        self._view.children[kind.kind].put(written)
        metadata = written["metadata"]
        self._settled[metadata["uid"]] = (metadata["resourceVersion"], child.digest)

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

    async def _prune(
        self, resource: Resource, wanted: set[ChildKey], kept_kinds: Collection[str]
    ) -> list[str]:
        """Messages of what could not be deleted."""
        owner, problems = (resource.namespace, resource.name), []
        accounts, pools = self._accounts_in_use(resource), self._pools_in_use(resource)
        for kind_name, table in self._view.children.items():
            for name, live in list(table.owned(owner).items()):
                is_going = "deletionTimestamp" in live["metadata"]
                is_in_use = kind_name == ACCOUNT and name in accounts
                pool = live["metadata"].get("labels", {}).get(POOL)
                is_in_use |= kind_name in kept_kinds and (pool is None or pool in pools)
                if ChildKey(kind_name, name) in wanted or is_going or is_in_use:
                    continue
                if not is_owned(live, resource):
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

    def _pools_in_use(self, resource: Resource) -> set[str | None]:
        """Those that have a Deployment or a pod that is to stay."""
        owner = (resource.namespace, resource.name)
        pods, deployments = self._view.pods.owned(owner), self._view.children["Deployment"].owned(owner)
        staying = [pod for pod in pods.values() if not is_leaving(pod)]
        return {body["metadata"].get("labels", {}).get(POOL) for body in [*staying, *deployments.values()]}

    def _accounts_in_use(self, resource: Resource) -> set[str]:
        """Accounts of pods that there are, and of those that a Deployment may make."""
        owner = (resource.namespace, resource.name)
        specs = [pod.get("spec", {}) for pod in self._view.pods.owned(owner).values()]
        deployments = self._view.children["Deployment"].owned(owner).values()
        specs += [body["spec"].get("template", {}).get("spec", {}) for body in deployments]
        return {spec["serviceAccountName"] for spec in specs if "serviceAccountName" in spec}


async def _refusals(
    children: Sequence[_Child], calls: Sequence[Awaitable[object]]
) -> dict[ChildKey, KubeError]:
    """Those that the API server refused; what is no refusal is raised once all have ended."""
    errors = await asyncio.gather(*calls, return_exceptions=True)
    refused = {}
    for child, error in zip(children, errors, strict=True):
        if isinstance(error, KubeError):
            refused[child.key] = error
        elif isinstance(error, BaseException):
            raise error
    return refused


def _refused(refusals: Mapping[ChildKey, KubeError], restored: Iterable[ChildKey] = ()) -> Outcome:
    invalid: list[str] = []
    problems: list[str] = []
    for key, error in refusals.items():
        found = invalid if is_about_the_spec(error) else problems
        found.append(f"{key.kind} {key.name}: {error}")
    return Outcome(tuple(problems), tuple(restored), invalid=tuple(invalid))


def _was_edited(child: _Child) -> bool:
    """Whether someone else had changed it: it drifted from what it was last made."""
    return child.is_as_applied


def _position(pointer: str) -> list[tuple[int, str]]:
    """So that later items of a list come after earlier ones."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in pointer.split("/")]
