from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from dllm_operator.cluster.kinds import CHILDREN, DEPLOYMENT, NODE, POD, RESOURCE
from dllm_operator.cluster.kube import Kind, Kube, KubeError
from kubernetes.aio.client import ApiClient, Configuration

HANGS_UP, NEVER = 599, 598
CONFIG_MAP = {"metadata": {"name": "chat", "namespace": "team-a"}, "data": {}}
Call = Callable[[Kube], Awaitable[Any]]


def talk(call: Call, status: int = 200, answer: Any = None) -> tuple[Any, web.Request, Any]:
    """What ``call`` returns from a server that gives one answer, with the request and its body."""
    seen: list[tuple[web.Request, Any]] = []

    async def reply(request: web.Request) -> web.Response:
        seen.append((request, await request.json() if request.can_read_body else None))
        if status == NEVER:
            await asyncio.Event().wait()
        if status == HANGS_UP and request.transport is not None:
            request.transport.close()
        if isinstance(answer, str):
            return web.Response(text=answer, status=status)
        return web.json_response({} if answer is None else answer, status=status)

    async def scenario() -> Any:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", reply)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        client = ApiClient(Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"))
        kube = Kube(client, 0.1) if status == NEVER else Kube(client)
        try:
            return await call(kube)
        finally:
            await kube.close()
            await runner.cleanup()

    result = asyncio.run(scenario())
    [(request, body)] = seen
    return result, request, body


@pytest.mark.parametrize(
    ("kind", "arguments", "path"),
    [
        (POD, ("team-a",), "/api/v1/namespaces/team-a/pods"),
        (POD, (None,), "/api/v1/pods"),
        (NODE, (None, "node-a"), "/api/v1/nodes/node-a"),
        (DEPLOYMENT, ("team-a", "chat"), "/apis/apps/v1/namespaces/team-a/deployments/chat"),
        (
            RESOURCE,
            ("team-a", "chat", "status"),
            "/apis/serving.dllm.dev/v1alpha1/namespaces/team-a/dllmdeployments/chat/status",
        ),
    ],
)
def test_a_kind_knows_its_paths(kind: Kind, arguments: tuple[Any, ...], path: str) -> None:
    assert kind.path(*arguments) == path


def test_an_apply_is_server_side_forced_and_by_one_manager() -> None:
    stored, request, body = talk(lambda kube: kube.apply(CHILDREN[2], CONFIG_MAP), answer={"stored": True})

    assert (request.method, request.path) == ("PATCH", "/api/v1/namespaces/team-a/configmaps/chat")
    assert dict(request.query) == {"fieldManager": "dllm-operator", "force": "true"}
    assert request.content_type == "application/apply-patch+yaml"
    assert (body, stored) == (CONFIG_MAP, {"stored": True})


def test_versions_are_asked_for_without_the_objects() -> None:
    items = [{"metadata": {"uid": "a", "resourceVersion": "7"}}]

    versions, request, _ = talk(lambda kube: kube.versions(POD, "team-a", "x=y"), answer={"items": items})

    assert versions == {"a": 7}
    assert "PartialObjectMetadataList" in request.headers["Accept"]
    assert request.query["labelSelector"] == "x=y"


def test_a_server_that_does_not_answer_in_time_is_a_refusal_that_says_so() -> None:
    words = "the API server has not answered GET /api/v1/namespaces/a/pods/b within 0.1 s"
    with pytest.raises(KubeError, match=words) as error:
        talk(lambda kube: kube.get(POD, "a", "b"), NEVER)

    assert (error.value.status, error.value.is_not_found) == (504, False)


def test_an_empty_list_has_no_versions() -> None:
    assert talk(lambda kube: kube.versions(POD, None), answer={"items": None})[0] == {}


def test_what_is_not_there_reads_as_none() -> None:
    assert talk(lambda kube: kube.get(POD, "team-a", "chat"), 404, {"reason": "NotFound"})[0] is None


@pytest.mark.parametrize("status", [403, 409, 422, 500])
def test_a_refusal_carries_the_api_servers_own_words(status: int) -> None:
    with pytest.raises(KubeError, match="because") as error:
        talk(lambda kube: kube.get(POD, "a", "b"), status, {"reason": "Why", "message": "because"})

    assert (error.value.status, error.value.reason, error.value.is_not_found) == (status, "Why", False)


@pytest.mark.parametrize("status", [200, 404, 409], ids=["done", "already gone", "another object"])
def test_a_deletion_is_of_one_object_and_may_come_late(status: int) -> None:
    _, request, body = talk(lambda kube: kube.delete(POD, "team-a", "chat", uid="u"), status)

    assert (request.method, body["preconditions"]) == ("DELETE", {"uid": "u"})


def test_a_refused_deletion_is_an_error() -> None:
    with pytest.raises(KubeError):
        talk(lambda kube: kube.delete(POD, "team-a", "chat", uid="u"), 403)


def test_an_answer_that_is_no_json_is_a_refusal_too() -> None:
    with pytest.raises(KubeError, match=r"^Too many requests, please try again later\.$") as error:
        talk(
            lambda kube: kube.get(POD, "team-a", "chat"), 429, "Too many requests, please try again later.\n"
        )

    assert error.value.status == 429


def test_a_server_that_hangs_up_is_a_connection_error() -> None:
    with pytest.raises(ConnectionError, match="PATCH /api/v1/namespaces/team-a/configmaps/chat: "):
        talk(lambda kube: kube.apply(CHILDREN[2], CONFIG_MAP), HANGS_UP)
