"""What the tests make and read: objects of one namespace, and a DLLMDeployment with its children."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from dllm_operator.api.v1alpha1 import API_VERSION, KIND
from dllm_operator.cluster.kinds import (
    AUTOSCALER,
    BY_KIND,
    CORE_CHILDREN,
    DEFINITION,
    EVENT,
    LEASE,
    NODE,
    POD,
    RESOURCE,
)
from dllm_operator.cluster.kube import Kind
from dllm_operator.cluster.labels import INSTANCE, MANAGED_BY, MANAGER
from kubernetes import config
from kubernetes.client.exceptions import ApiException

from tests.cluster.cluster import Cluster

Fields = dict[str, Any]
Manifest = dict[str, Any]
Found = TypeVar("Found")

POLL_SECONDS = 0.25
SETTLED_SECONDS = 90.0  # a machine may have other tests to run
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
SERVER_SIDE_APPLY = "application/apply-patch+yaml"
SECRET = Kind("v1", "Secret", "secrets")
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
LIMIT_RANGE = Kind("v1", "LimitRange", "limitranges")
VOLUME = Kind("v1", "PersistentVolume", "persistentvolumes", is_namespaced=False)
_OTHERS = (
    VOLUME,
    RESOURCE,
    NODE,
    POD,
    EVENT,
    LEASE,
    AUTOSCALER,
    DEFINITION,
    SECRET,
    REPLICA_SET,
    QUOTA,
    LIMIT_RANGE,
)
KINDS: Mapping[str, Kind] = BY_KIND | {kind.kind: kind for kind in _OTHERS}


def eventually(check: Callable[[], Found], seconds: float = SETTLED_SECONDS) -> Found:
    """What ``check`` returns once its assertions hold; its last failure when they do not in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(POLL_SECONDS)


class Objects:
    """Objects of one namespace (or of the cluster) by kind and name, as plain manifests.

    A poll a quarter of a second is a request here, where `kubectl` would be a process.
    """

    def __init__(self, cluster: Cluster, namespace: str | None = None, token: str | None = None) -> None:
        """As an administrator, or as the account that ``token`` is of."""
        self.namespace = namespace
        kubeconfig = json.loads(cluster.kubectl("config", "view", "--raw", "--output=json"))
        if token is not None:
            for each in kubeconfig["users"]:
                each["user"] = {"token": token}
        self._api = config.new_client_from_config_dict(kubeconfig)

    def find(self, kind: str, name: str) -> Manifest | None:
        """None where there is none."""
        try:
            return self.get(kind, name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def get(self, kind: str, name: str) -> Manifest:
        return self._call("GET", self._path(kind, name))

    def list(self, kind: str, labels: str = "") -> list[Manifest]:
        query = [("labelSelector", labels)] if labels else []
        items: list[Manifest] = self._call("GET", self._path(kind), query=query)["items"]
        return items

    def create(self, manifest: Manifest) -> Manifest:
        return self._call("POST", self._path(manifest["kind"]), body=manifest)

    def patch(
        self, kind: str, name: str, body: Fields, subresource: str = "", content_type: str = MERGE_PATCH
    ) -> Manifest:
        """As `kubectl patch --type=merge` does, unless another type of patch is said."""
        path = "/".join(part for part in (self._path(kind, name), subresource) if part)
        query = [("fieldManager", "a-user")]
        return self._call("PATCH", path, query=query, body=body, content_type=content_type)

    def delete(self, kind: str, name: str, grace_seconds: int | None = None) -> None:
        """One that is already gone is fine."""
        query = [] if grace_seconds is None else [("gracePeriodSeconds", str(grace_seconds))]
        try:
            self._call("DELETE", self._path(kind, name), query=query)
        except ApiException as error:
            if error.status != 404:
                raise

    def _path(self, kind: str, name: str | None = None) -> str:
        return KINDS[kind].path(self.namespace, name)

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: list[tuple[str, str]] | None = None,
        body: Fields | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if body else {})
        request = self._api.param_serialize(
            method,
            path,
            query_params=query or [],
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        response = self._api.call_api(*request, _request_timeout=30.0)
        content = response.read()
        if response.status >= 400:
            raise ApiException(status=response.status, reason=response.reason, body=content.decode())
        answer: Manifest = json.loads(content)
        return answer


def merged(base: Fields, *changes: Fields) -> Fields:
    """A copy of ``base`` with ``changes`` merged into it, maps deeply and the rest by replacement."""
    result = dict(base)
    for change in changes:
        for name, value in change.items():
            old = result.get(name)
            is_deep = isinstance(old, dict) and isinstance(value, dict)
            result[name] = merged(old, value) if is_deep else value
    return result


@dataclass(frozen=True)
class Serving:
    """One DLLMDeployment, watched from outside."""

    objects: Objects
    name: str

    @classmethod
    def create(cls, objects: Objects, name: str, *specs: Fields) -> Serving:
        """With the embedded model and ``specs`` merged over it."""
        spec = merged({"model": {"source": "embedded"}}, *specs)
        objects.create({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec})
        return cls(objects, name)

    def edit(self, spec: Fields) -> int:
        """Merge ``spec`` into the resource's; the generation it gets."""
        generation: int = self.objects.patch(KIND, self.name, {"spec": spec})["metadata"]["generation"]
        return generation

    def delete(self) -> None:
        self.objects.delete(KIND, self.name)

    def read(self) -> Manifest:
        return self.objects.get(KIND, self.name)

    def status(self) -> Fields:
        status: Fields = self.read().get("status", {})
        return status

    def condition(self, kind: str) -> Fields:
        """Of that type; its reason is empty before the first status."""
        conditions = self.status().get("conditions", ())
        found = [dict(condition) for condition in conditions if condition["type"] == kind]
        return found[0] if found else {"status": "Unknown", "reason": "", "message": ""}

    def deployment(self, pool: str = "cpu") -> Manifest:
        return self.objects.get("Deployment", f"{self.name}-{pool}")

    def environment(self, pool: str = "cpu") -> dict[str, Any]:
        """Of the engine's container; None for what comes from elsewhere."""
        container = self.deployment(pool)["spec"]["template"]["spec"]["containers"][0]
        return {variable["name"]: variable.get("value") for variable in container["env"]}

    def pods(self) -> list[Manifest]:
        """Those that are not on their way out."""
        pods = self.objects.list("Pod", self._selector)
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def children(self) -> set[tuple[str, str]]:
        """Kind and name of what carries the resource's labels, but for pods and ReplicaSets."""
        return {
            (kind.kind, child["metadata"]["name"])
            for kind in CORE_CHILDREN
            for child in self.objects.list(kind.kind, self._selector)
        }

    def events(self, reason: str) -> list[Manifest]:
        """On the resource itself."""
        uid = self.read()["metadata"]["uid"]
        events = self.objects.list("Event")
        return [e for e in events if e["involvedObject"].get("uid") == uid and e["reason"] == reason]

    def wait_ready(self, seconds: float = SETTLED_SECONDS) -> Fields:
        """Ready and settled with the newest spec; the status."""

        def check() -> Fields:
            body = self.read()
            status: Fields = body.get("status", {})
            found = {c["type"]: c for c in status.get("conditions", ())}
            assert status.get("observedGeneration") == body["metadata"]["generation"], status
            assert found["Ready"]["status"] == "True", found["Ready"]
            assert found["Progressing"]["reason"] == "Settled", found["Progressing"]
            return status

        return eventually(check, seconds)

    def wait_reason(self, kind: str, reason: str, seconds: float = SETTLED_SECONDS) -> Fields:
        """The condition of that type once it has that reason."""

        def check() -> Fields:
            condition = self.condition(kind)
            assert condition["reason"] == reason, condition
            return condition

        return eventually(check, seconds)

    @property
    def _selector(self) -> str:
        return f"{INSTANCE}={self.name},{MANAGED_BY}={MANAGER}"
