"""How the server ends: told to, or because the engine did."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from dllm_server.api.app import create_app, create_service
from dllm_server.api.guards.lifecycle import Lifecycle, ServingState
from dllm_server.engine.requests.messages import Generate
from dllm_server.models.tokenizer import load_tokenizer
from dllm_server.settings import ApiSettings, DiffusionSettings
from scripted_engine import FIXTURE, ScriptedEngine, Step, Wait, count_up, one_block_then
from scripted_server import ScriptedServer, eventually

BODY = {"prompt": [1, 2], "max_tokens": 8}


def wait_at_the_gate(request: Generate) -> list[Step]:
    """The first block at once, the others once the gate is open."""
    first, *others = count_up(request)
    return [first, Wait.GATE, *others]


def post_in_background(
    server: ScriptedServer, pool: ThreadPoolExecutor, **body: Any
) -> Future[httpx.Response]:
    url = f"{server.url}/v1/completions"
    return pool.submit(lambda: httpx.post(url, json=BODY | body, timeout=300))


@pytest.mark.parametrize("stream", [False, True])
def test_told_to_stop_it_finishes_what_runs_and_refuses_what_is_new(stream: bool) -> None:
    with ScriptedServer(wait_at_the_gate) as server, ThreadPoolExecutor() as pool:
        running = post_in_background(server, pool, stream=stream)
        eventually(lambda: bool(server.engine.open), "the request is running")
        server.stop()
        eventually(lambda: server.http.get("/ready").status_code == 503, "not ready")
        refused = server.http.post("/v1/completions", json=BODY)
        healthy = server.http.get("/health")
        server.call(server.engine.gate.set)

        assert server.join() == 0
        assert running.result().status_code == 200
        assert ("[DONE]" in running.result().text) is stream
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert healthy.status_code == 200


def test_while_leaving_it_takes_requests_and_closes_their_connections() -> None:
    with ScriptedServer(count_up, shutdown_delay_seconds=60) as server:
        kept = server.http.get("/version")
        server.stop()
        eventually(lambda: server.http.get("/ready").status_code == 503, "not ready")
        taken = server.http.post("/v1/completions", json=BODY)
        server.stop()

        assert server.join() == 0
        assert "connection" not in kept.headers
        assert (taken.status_code, taken.headers["connection"]) == (200, "close")


@pytest.mark.parametrize("stream", [False, True])
def test_requests_that_outlast_the_grace_period_are_answered_503(stream: bool) -> None:
    script = one_block_then(lambda _: Wait.FOREVER)
    with ScriptedServer(script, shutdown_grace_seconds=0.1) as server, ThreadPoolExecutor() as pool:
        running = post_in_background(server, pool, stream=stream)
        eventually(lambda: bool(server.engine.open), "the request is running")
        server.stop()

        assert server.join() == 0
        assert running.result().status_code == (200 if stream else 503)
        assert "shutting_down" in running.result().text


@pytest.mark.parametrize(("engine_code", "server_code"), [(-9, 137), (3, 3), (0, 1)])
def test_the_engine_ending_ends_the_server_with_a_code(engine_code: int, server_code: int) -> None:
    with ScriptedServer(one_block_then(lambda _: Wait.FOREVER)) as server, ThreadPoolExecutor() as pool:
        whole, stream = post_in_background(server, pool), post_in_background(server, pool, stream=True)
        eventually(lambda: len(server.engine.open) == 2, "the requests are running")
        server.call(lambda: server.engine.die(engine_code))

        assert server.join() == server_code
        assert (whole.result().status_code, whole.result().json()["error"]["code"]) == (503, "engine_dead")
        assert "engine_dead" in stream.result().text


async def statuses_around_the_engines_end() -> tuple[list[int], list[int], str]:
    """Of /health and /ready before and after, and the error code of a request after; no socket, since the
    server closes its own at once."""
    engine = ScriptedEngine(count_up, slots=4)
    service = create_service(
        ApiSettings(), engine, load_tokenizer(FIXTURE), DiffusionSettings(block_length=4)
    )
    transport = httpx.ASGITransport(app=create_app(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        before = [(await client.get(path)).status_code for path in ("/health", "/ready")]
        service.lifecycle.move_to(ServingState.FAILED)
        after = [(await client.get(path)).status_code for path in ("/health", "/ready")]
        refused = await client.post("/v1/completions", json=BODY)
    return before, after, refused.json()["error"]["code"]


def test_health_fails_once_the_engine_is_dead() -> None:
    before, after, code = asyncio.run(statuses_around_the_engines_end())

    assert before == [200, 200]
    assert after == [503, 503]
    assert code == "engine_dead"


def test_a_failed_server_never_serves_again() -> None:
    lifecycle = Lifecycle()
    lifecycle.move_to(ServingState.FAILED)

    with pytest.raises(RuntimeError, match="illegal transition from failed to draining"):
        lifecycle.move_to(ServingState.DRAINING)
