"""The API server as a few verbs over plain manifests."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import ClientError
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config.config_exception import ConfigException

from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.wire import yaml_bytes

FIELD_MANAGER = "dllm-operator"
REQUEST_SECONDS = 30.0
_APPLY = (
    "application/apply-patch+yaml; charset=utf-8"  # the library leaves bytes of a type it does not know alone
)
_JSON_PATCH = "application/json-patch+json"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class KubeError(Exception):
    """The API server refused; the message is its own."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def is_not_found(self) -> bool:
        return self.status == HTTPStatus.NOT_FOUND


@dataclass(frozen=True, slots=True)
class Kind:
    """Where a kind lives in the API."""

    api_version: str
    kind: str
    plural: str
    is_namespaced: bool = True

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        scope = f"/namespaces/{namespace}" if self.is_namespaced and namespace else ""
        return f"{root}{scope}/{self.plural}" + "".join(f"/{part}" for part in (name, subresource) if part)


class Kube:
    """Thin over kubernetes.aio's client, which brings authentication, TLS and connection reuse."""

    def __init__(self, client: ApiClient, answer_seconds: float = REQUEST_SECONDS) -> None:
        self.client = client
        self._answer_seconds = answer_seconds

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> Kube:
        """The pod's service account, else the kubeconfig of that path, of the environment, or of the home."""
        configuration = Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except ConfigException:
            file = kubeconfig or os.environ.get("KUBECONFIG")
            await config.load_kube_config(file, client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(ApiClient(configuration))

    async def close(self) -> None:
        await self.client.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """None where there is none."""
        try:
            return await self._call("GET", kind.path(namespace, name))
        except KubeError as error:
            if error.is_not_found:
                return None
            raise

    async def list(
        self, kind: Kind, namespace: str | None, label_selector: str | None = None
    ) -> tuple[Manifest, ...]:
        """Those that the selector matches."""
        query = {} if label_selector is None else {"labelSelector": label_selector}
        answer = await self._call("GET", kind.path(namespace), query=query)
        return tuple(answer["items"] or ())

    async def versions(
        self, kind: Kind, namespace: str | None, label_selector: str | None = None
    ) -> dict[str, int]:
        """Resource version by uid, without the objects' content."""
        query = {} if label_selector is None else {"labelSelector": label_selector}
        answer = await self._call("GET", kind.path(namespace), query=query, accept=_METADATA_ONLY)
        items = (item["metadata"] for item in answer["items"] or ())  # null where there is none
        return {metadata["uid"]: int(metadata["resourceVersion"]) for metadata in items}

    async def apply(
        self,
        kind: Kind,
        manifest: Manifest,
        *,
        subresource: str | None = None,
        field_manager: str = FIELD_MANAGER,
        is_dry_run: bool = False,
    ) -> Manifest:
        """Server-side apply; fields this manager applied before and no longer names are removed. Fails with
        409 where the manifest names a ``resourceVersion`` or ``uid`` that the object no longer has. A dry run
        changes nothing, and is refused as the change would be."""
        metadata = manifest["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"], subresource)
        query = {"fieldManager": field_manager, "force": "true"} | ({"dryRun": "All"} if is_dry_run else {})
        return await self._call("PATCH", path, query=query, body=yaml_bytes(manifest), content_type=_APPLY)

    async def edit(
        self, kind: Kind, namespace: str, name: str, operations: Sequence[Mapping[str, Any]]
    ) -> Manifest:
        """By a JSON patch."""
        query = {"fieldManager": FIELD_MANAGER}
        body = [dict(each) for each in operations]
        return await self._call(
            "PATCH", kind.path(namespace, name), query=query, body=body, content_type=_JSON_PATCH
        )

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        path = kind.path(manifest["metadata"]["namespace"])
        return await self._call("POST", path, query={"fieldManager": FIELD_MANAGER}, body=manifest)

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Fails with 409 when the object has changed since it was read."""
        metadata = manifest["metadata"]
        return await self._call("PUT", kind.path(metadata["namespace"], metadata["name"]), body=manifest)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        """Only the object of that uid; one that is already gone is fine."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        try:
            await self._call("DELETE", kind.path(namespace, name), body=body)
        except KubeError as error:
            if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | Sequence[Manifest] | bytes | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Manifest:
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = content_type
        request = await self.client.param_serialize(
            method=method,
            resource_path=path,
            query_params=list((query or {}).items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self.client.call_api(*request, _request_timeout=self._answer_seconds)
            content: bytes = await response.read()  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            words = f"the API server has not answered {method} {path} within {self._answer_seconds:g} s"
            raise KubeError(HTTPStatus.GATEWAY_TIMEOUT, "Timeout", words) from error
        except ClientError as error:  # not all of which are OSError
            raise ConnectionError(f"{method} {path}: {error}") from error
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise _refusal(response.status, content)
        document: Manifest = json.loads(content)
        return document


def _refusal(status: int, content: bytes) -> KubeError:
    """Of a Status object, or of the text that an overloaded server or a proxy answers with."""
    try:
        document = json.loads(content)
    except ValueError:
        return KubeError(status, "", content.decode(errors="replace").strip() or f"HTTP status {status}")
    return KubeError(status, document.get("reason", ""), document.get("message", ""))
