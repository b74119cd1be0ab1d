"""The operator's picture of the cluster, kept by watch events and by its own writes.

A reconcile reads this instead of the API server, so a steady cluster costs no requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dllm_operator.cluster.field_owners import foreign_fields
from dllm_operator.cluster.kinds import CHILDREN, DEPLOYMENT, INTEGRATION_CHILDREN, definition_name
from dllm_operator.cluster.kube import FIELD_MANAGER
from dllm_operator.cluster.labels import INSTANCE
from dllm_operator.cluster.observe import ChildKey, Integration, Manifest, Observed, holds
from dllm_operator.cluster.ownership import is_owned
from dllm_operator.cluster.placement import PLACEMENT
from dllm_operator.cluster.pod_setup import MOUNTS
from dllm_operator.cluster.pools import GpuType, Node, gpu_types
from dllm_operator.cluster.resource import Resource, claim_names, without_large_spec

ResourceKey = tuple[str, str]  # namespace, name
LOST_SECONDS = 10.0
REPLICA_OWNERS = "replicaOwners"  # beside metadata: managers that applied spec.replicas
FOREIGN = "foreignFields"  # beside metadata of a Deployment: what others have set in its template


@dataclass(slots=True)
class Table:
    """Objects of one kind by (namespace, name), trimmed to what is used of them; an older version never
    replaces a newer one."""

    trim: Callable[[Manifest], Manifest]
    objects: dict[ResourceKey, Manifest] = field(default_factory=dict)
    by_owner: dict[ResourceKey, dict[str, Manifest]] = field(default_factory=dict)

    def put(self, body: Manifest) -> bool:
        """Whether it was news."""
        key = _key(body)
        known = self.objects.get(key)
        if known is not None and _uid(known) == _uid(body) and _version(known) >= _version(body):
            return False
        if known is not None:
            self._unlink(key, known)
        kept = self.trim(body)
        self.objects[key] = kept
        owner = owner_of(kept)
        if owner is not None:
            self.by_owner.setdefault(owner, {})[key[1]] = kept
        return True

    def drop(self, body: Manifest) -> None:
        """Forget a deleted object, unless its name was taken by a new one meanwhile."""
        key = _key(body)
        known = self.objects.get(key)
        if known is not None and _uid(known) == _uid(body):
            del self.objects[key]
            self._unlink(key, known)

    def clear(self) -> None:
        """Forget all, so that the next look at each asks the API server."""
        self.objects.clear()
        self.by_owner.clear()

    def owned(self, owner: ResourceKey) -> dict[str, Manifest]:
        return self.by_owner.get(owner, {})

    def versions(self) -> dict[str, int]:
        """Resource version by uid."""
        return {_uid(body): _version(body) for body in self.objects.values()}

    def _unlink(self, key: ResourceKey, body: Manifest) -> None:
        owner = owner_of(body)
        if owner is not None and owner in self.by_owner:
            self.by_owner[owner].pop(key[1], None)
            if not self.by_owner[owner]:
                del self.by_owner[owner]


@dataclass(slots=True)
class ClusterView:
    """Tables by kind, and what nodes, autoscalers and CRDs boil down to."""

    clock: Callable[[], float] = time.monotonic
    resources: Table = field(default_factory=lambda: Table(_trim_resource))
    pods: Table = field(default_factory=lambda: Table(_trim_pod))
    children: dict[str, Table] = field(
        default_factory=lambda: {
            kind.kind: Table(_trim_deployment if kind is DEPLOYMENT else _trim) for kind in CHILDREN
        }
    )
    nodes: dict[str, Node] = field(default_factory=dict)
    unready_since: dict[str, float] = field(default_factory=dict)
    autoscaler_targets: dict[ResourceKey, str] = field(default_factory=dict)
    definitions: set[str] = field(default_factory=set)
    _gpu_types: tuple[GpuType, ...] | None = None

    def put_node(self, body: Manifest) -> bool:
        """Whether the node's GPUs or taints have changed, or whether it is ready; heartbeats are no news, nor
        are labels of others."""
        node, is_ready = _node(body), holds(body, "Ready")
        known = self.nodes.get(node.name)
        is_news = known is None or known.offer != node.offer
        self.nodes[node.name] = node
        if is_news:
            self._gpu_types = None
        if is_ready:
            return self.unready_since.pop(node.name, None) is not None or is_news
        is_news = is_news or node.name not in self.unready_since
        self.unready_since.setdefault(node.name, self.clock())
        return is_news

    def drop_node(self, name: str) -> None:
        self.nodes.pop(name, None)
        self.unready_since.pop(name, None)
        self._gpu_types = None

    def lost_nodes(self) -> frozenset[str]:
        """Nodes that have not been ready for a while; a missed heartbeat loses none."""
        now = self.clock()
        return frozenset(name for name, since in self.unready_since.items() if now - since >= LOST_SECONDS)

    def put_autoscaler(self, body: Manifest) -> bool:
        """Whether its target is news; only Deployments are of interest."""
        key, target = _key(body), body["spec"]["scaleTargetRef"]
        name = target["name"] if target["kind"] == "Deployment" else ""
        if self.autoscaler_targets.get(key) == name:
            return False
        self.autoscaler_targets[key] = name
        return True

    def drop_autoscaler(self, body: Manifest) -> None:
        self.autoscaler_targets.pop(_key(body), None)

    def put_definition(self, body: Manifest) -> bool:
        """Whether the CRD has become usable, or ceased to be."""
        name, was_known = body["metadata"]["name"], body["metadata"]["name"] in self.definitions
        if holds(body, "Established"):
            self.definitions.add(name)
        else:
            self.definitions.discard(name)
        return was_known != (name in self.definitions)

    def gpu_types(self) -> tuple[GpuType, ...]:
        if self._gpu_types is None:
            self._gpu_types = gpu_types(self.nodes.values())
        return self._gpu_types

    def observe(self, resource: Resource) -> Observed:
        """What `resource` sees now."""
        owner = (resource.namespace, resource.name)
        return Observed(
            gpu_types=self.gpu_types(),
            nodes=self.nodes,
            claims=self._claims(resource),
            lost_nodes=self.lost_nodes(),
            children={
                ChildKey(kind, name): body
                for kind, table in self.children.items()
                for name, body in table.owned(owner).items()
                if is_owned(body, resource)
            },
            pods=tuple(self.pods.owned(owner).values()),
            autoscaled=frozenset(
                target for (namespace, _), target in self.autoscaler_targets.items() if namespace == owner[0]
            ),
            integrations=frozenset(
                Integration(kind.kind)
                for kind in INTEGRATION_CHILDREN
                if definition_name(kind) in self.definitions
            ),
            pool_order=tuple(pool["name"] for pool in resource.status.get("pools", ())),
        )

    def _claims(self, resource: Resource) -> dict[str, tuple[str, ...]]:
        table, spec = self.children["PersistentVolumeClaim"].objects, resource.spec
        names = claim_names(spec) if spec is not None else ()
        found = {name: table.get((resource.namespace, name)) for name in names}
        return {name: tuple(body["spec"].get("accessModes", ())) for name, body in found.items() if body}

    def resource_keys(self) -> Iterator[ResourceKey]:
        return iter(tuple(self.resources.objects))


def _key(body: Manifest) -> ResourceKey:
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]


def owner_of(body: Manifest) -> ResourceKey | None:
    """The resource a labelled child belongs to."""
    instance = body["metadata"].get("labels", {}).get(INSTANCE)
    return (body["metadata"].get("namespace", ""), instance) if instance else None


def _uid(body: Manifest) -> str:
    return str(body["metadata"]["uid"])


def _version(body: Manifest) -> int:
    return int(body["metadata"]["resourceVersion"])


def _trim(body: Manifest) -> Manifest:
    """Without managedFields, which are larger than the rest; of them only who owns `spec.replicas` is
    kept.
    """
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    return body | {"metadata": metadata, REPLICA_OWNERS: _replica_owners(body)}


def _trim_resource(body: Manifest) -> Manifest:
    """Without annotations, which nobody reads and which may repeat the spec."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "annotations"}
    return without_large_spec(_trim(body | {"metadata": metadata}))


def _trim_deployment(body: Manifest) -> Manifest:
    return _trim(body) | {FOREIGN: foreign_fields(body, FIELD_MANAGER)}


def _trim_pod(body: Manifest) -> Manifest:
    """Of its spec the node and which it may be, what it asks for, its account, its ports, and the volumes
    that name other objects."""
    spec = body.get("spec", {})
    kept = {field: spec[field] for field in (*PLACEMENT, "serviceAccountName") if field in spec}
    kept["nodeName"] = spec.get("nodeName")
    kept["volumes"] = [v for v in spec.get("volumes", ()) if any(field in v for field, *_ in MOUNTS)]
    kept["containers"] = [
        {field: each[field] for field in ("ports", "resources", "startupProbe") if field in each}
        for each in spec.get("containers", ())
    ]
    return _trim(body) | {"spec": kept}


def _replica_owners(body: Manifest) -> list[str]:
    return [
        entry["manager"]
        for entry in body["metadata"].get("managedFields", ())
        if "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {}) and entry.get("operation") == "Apply"
    ]


def _node(body: Manifest) -> Node:
    metadata, status = body["metadata"], body.get("status", {})
    taints = body.get("spec", {}).get("taints") or ()
    return Node(
        name=metadata["name"],
        labels=dict(metadata.get("labels", {})),
        allocatable={k: v for k, v in status.get("allocatable", {}).items() if k.startswith("nvidia.com/")},
        taints=tuple(
            {field: taint[field] for field in ("key", "value", "effect") if field in taint}
            for taint in taints
            if taint["effect"] != "PreferNoSchedule"
        ),
    )
