"""Builders of what the operator reads: specs, resources, nodes, pods, Deployments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dllm_operator.api.v1alpha1 import API_VERSION, KIND, DLLMDeploymentSpec
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.heartbeat import Heartbeats
from dllm_operator.cluster.kube import FIELD_MANAGER, Kind, KubeError
from dllm_operator.cluster.labels import child_labels
from dllm_operator.cluster.observe import Manifest, Observed
from dllm_operator.cluster.pools import GpuType, Node
from dllm_operator.cluster.profile_store import ProfileStore
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.book import TuningBook
from dllm_operator.planning.plan import plan
from dllm_operator.planning.planner import Planner
from dllm_operator.process.rollouts import Rollouts
from dllm_operator.render import PodDefaults, render
from dllm_operator.writing.claim import Claims

NAME, NAMESPACE, UID = "chat", "team-a", "0f9a"
DEFAULTS = PodDefaults("example.local/dllm-server:dev")


def make_spec(**fields: Any) -> DLLMDeploymentSpec:
    return DLLMDeploymentSpec.model_validate({"model": {"source": "embedded"}} | fields)


def make_body(uid: str = UID, generation: int = 1, name: str = NAME, **spec: Any) -> Manifest:
    """A live DLLMDeployment."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": uid,
            "generation": generation,
            "resourceVersion": str(generation),
        },
        "spec": {"model": {"source": "embedded"}} | spec,
    }


def make_resource(
    uid: str = UID, generation: int = 1, status: Mapping[str, Any] | None = None, **spec: Any
) -> Resource:
    return Resource.parse(make_body(uid, generation, **spec) | {"status": dict(status or {})})


def make_observed(**fields: Any) -> Observed:
    return Observed(**fields)


def render_resource(resource: Resource, observed: Observed | None = None) -> tuple[Manifest, ...]:
    """Every child of a resource with a valid spec."""
    assert resource.spec is not None, resource.problems
    planned = plan(resource.name, resource.spec, observed or make_observed())
    return render(resource, resource.spec, planned, DEFAULTS)


def make_gpu(product: str = "NVIDIA-L40S", **fields: Any) -> GpuType:
    return GpuType(product, {"nvidia.com/gpu.product": product}, **fields)


def make_node(name: str = "node-a", labels: Mapping[str, str] | None = None, **allocatable: str) -> Node:
    """``allocatable`` by the part after ``nvidia.com/``; eight whole GPUs if not given."""
    resources = {f"nvidia.com/{resource}": count for resource, count in allocatable.items()}
    return Node(name, dict(labels or {}), resources or {"nvidia.com/gpu": "8"})


def make_node_body(
    name: str = "node-a", product: str | None = None, is_ready: bool = True, **metadata: Any
) -> Manifest:
    """A live Node."""
    labels = {"kubernetes.io/hostname": name} | ({"nvidia.com/gpu.product": product} if product else {})
    return {
        "metadata": {"name": name, "labels": labels, **metadata},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if is_ready else "Unknown"}],
            "allocatable": {"cpu": "4", "nvidia.com/gpu": "8"},
        },
    }


def make_container(state: Manifest | None = None, last: Manifest | None = None, **fields: Any) -> Manifest:
    """A container's status; ``fields`` are ready, restartCount, ..."""
    status = {"name": "engine", "ready": False, "restartCount": 0}
    return status | {"state": state or {}, "lastState": last or {}} | fields


def make_pod(
    *containers: Manifest,
    name: str = "chat-l40s-1",
    pool: str = "l40s",
    node: str | None = "node-a",
    is_ready: bool = False,
    born: str = "2026-01-01T00:00:00Z",
    metadata: Mapping[str, Any] | None = None,
    **status: Any,
) -> Manifest:
    """A pod that was scheduled (unless ``node`` is None), ready only with ``is_ready``."""
    ready = {"type": "Ready", "status": str(is_ready)}
    scheduled = {"type": "PodScheduled", "status": "True"}
    running = make_container({"running": {}}, ready=is_ready)
    labels = child_labels(NAME, pool)
    identity = {"name": name, "namespace": NAMESPACE, "uid": name, "resourceVersion": "1"}
    return {
        "metadata": identity | {"creationTimestamp": born, "labels": labels} | dict(metadata or {}),
        "spec": {"nodeName": node} if node else {},
        "status": {
            "phase": "Running",
            "conditions": [scheduled, ready] if node else [],
            "containerStatuses": list(containers) or ([running] if node else []),
        }
        | status,
    }


def make_deployment(
    pool: str = "l40s",
    replicas: int = 1,
    pods: int | None = None,
    updated: int | None = None,
    is_observed: bool = True,
    **metadata: Any,
) -> Manifest:
    """A live Deployment of a pool; its controller counted ``pods`` of which ``updated`` are new."""
    count = replicas if pods is None else pods
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"{NAME}-{pool}",
            "namespace": NAMESPACE,
            "uid": f"uid-{pool}",
            "resourceVersion": "7",
            "generation": 2,
            "labels": child_labels(NAME, pool),
            "ownerReferences": [make_resource().owner_reference],
        }
        | metadata,
        "spec": {"replicas": replicas},
        "status": {
            "observedGeneration": 2 if is_observed else 1,
            "replicas": count,
            "updatedReplicas": count if updated is None else updated,
        },
    }


def make_refused(live: Manifest, message: str, status: str = "True") -> Manifest:
    """A Deployment whose controller says that the API server refuses its pods."""
    condition = {"type": "ReplicaFailure", "status": status, "reason": "FailedCreate", "message": message}
    return live | {"status": live["status"] | {"conditions": [condition]}}


def by_kind(manifests: tuple[Manifest, ...], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def only(manifests: tuple[Manifest, ...], kind: str) -> Manifest:
    [found] = by_kind(manifests, kind)
    return found


class FakeKube:
    """An API server in a dictionary that takes notes of writes in ``calls`` and of dry runs in ``tries``;
    ``refusals`` by (kind, name) answer any of them.

    Of server-side apply it knows what a Deployment's replicas need: a field that nobody owns falls to 1.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.tries: list[tuple[str, str]] = []
        self.bodies: list[Manifest] = []
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.refusals: dict[tuple[str, str], KubeError] = {}
        self.lowest_replicas: dict[str, int] = {}
        self._owners: dict[tuple[str, str], set[str]] = {}
        self._version = 100

    def store(self, body: Manifest) -> Manifest:
        self.objects[body["kind"], body["metadata"]["name"]] = body
        return body

    def next_version(self) -> str:
        self._version += 1
        return str(self._version)

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        return self.objects.get((kind.kind, name))

    async def apply(
        self,
        kind: Kind,
        manifest: Manifest,
        *,
        subresource: str | None = None,
        field_manager: str = FIELD_MANAGER,
        is_dry_run: bool = False,
    ) -> Manifest:
        key = (kind.kind, manifest["metadata"]["name"])
        if is_dry_run:
            self.tries.append(key)
            self._answer(*key)
            return manifest
        self._note("apply" if field_manager == FIELD_MANAGER else f"apply as {field_manager}", *key)
        self.bodies.append(manifest)
        live = self.objects.get(key, {"metadata": {"uid": f"uid-{kind.kind}-{key[1]}"}})
        if manifest["metadata"].get("resourceVersion", "") not in (
            "",
            live["metadata"].get("resourceVersion"),
        ):
            raise KubeError(409, "Conflict", "the object has been modified")
        metadata = live["metadata"] | manifest["metadata"] | {"resourceVersion": self.next_version()}
        stored = live | manifest | {"metadata": metadata}
        if kind.kind == "Deployment":
            self._own_replicas(key, stored, live, manifest, field_manager)
        return self.store(stored)

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        kind_name, name = kind.kind, manifest["metadata"]["name"]
        self._note("create", kind_name, name)
        self.bodies.append(manifest)
        if (kind_name, name) in self.objects:
            raise KubeError(409, "AlreadyExists", f"{name} already exists")
        identity = {"uid": f"uid-{kind_name}-{name}", "resourceVersion": self.next_version()}
        return self.store(manifest | {"metadata": manifest["metadata"] | identity})

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        self._note("delete", kind.kind, name)
        self.objects.pop((kind.kind, name), None)

    def _note(self, verb: str, kind: str, name: str) -> None:
        self.calls.append((verb, kind, name))
        self._answer(kind, name)

    def _answer(self, kind: str, name: str) -> None:
        if (kind, name) in self.refusals:
            raise self.refusals[kind, name]

    def _own_replicas(
        self, key: tuple[str, str], stored: Manifest, live: Manifest, manifest: Manifest, manager: str
    ) -> None:
        owners = self._owners.setdefault(key, set())
        says = "replicas" in manifest["spec"]
        owners.add(manager) if says else owners.discard(manager)
        replicas = manifest["spec"]["replicas"] if says else live.get("spec", {}).get("replicas", 1)
        replicas = replicas if owners else 1
        stored["spec"] = live.get("spec", {}) | manifest["spec"] | {"replicas": replicas}
        stored["metadata"]["managedFields"] = [
            {"manager": owner, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
            for owner in sorted(owners)
        ]
        self.lowest_replicas[key[1]] = min(replicas, self.lowest_replicas.get(key[1], replicas))


def make_rollouts(view: ClusterView, limit: int = 100) -> Rollouts:
    """That wake nobody."""
    return Rollouts(view, limit, "release-1", lambda _: None)


MANAGER = "dllm-system/dllm-operator"


def make_claims(kube: FakeKube, view: ClusterView, manager: str = MANAGER, **clocks: Any) -> Claims:
    """Of an operator that takes over two minutes after another one's Lease has ended."""
    return Claims(kube, view, manager, Heartbeats(kube, 120.0, **clocks))  # type: ignore[arg-type]


def make_planner(kube: FakeKube, view: ClusterView) -> Planner:
    """With nothing learned yet."""
    profiles = ProfileStore(kube, "dllm-system", "profiles")  # type: ignore[arg-type]
    return Planner(view, TuningBook(), profiles, DEFAULTS.image)
