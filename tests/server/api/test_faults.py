"""The real server under load when something goes wrong."""

from __future__ import annotations

import asyncio
import json
import random
from concurrent.futures import ThreadPoolExecutor

import httpx
from real_server import RealServer
from scripted_server import eventually

LOAD = 24
PROMPT_TOKENS = 20


def ask(server: RealServer, index: int) -> httpx.Response:
    """A request of some length, streamed for every other index."""
    body = {"prompt": [index + 1] * PROMPT_TOKENS, "max_tokens": 40, "ignore_eos": True}
    return httpx.post(f"{server.url}/v1/completions", json=body | {"stream": index % 2 == 0}, timeout=300)


def is_complete(response: httpx.Response) -> bool:
    if response.headers["content-type"].startswith("text/event-stream"):
        return response.text.endswith("data: [DONE]\n\n")
    return response.status_code == 200 and len(response.json()["choices"]) == 1


def wait_until_accepted(server: RealServer) -> None:
    submitted = 'vllm:prompt_tokens_total{model_name="llada_mha"}'
    eventually(lambda: server.metric(submitted) == LOAD * PROMPT_TOKENS, "all requests are accepted")


def test_sigterm_under_load_finishes_every_accepted_request() -> None:
    grace = ("--shutdown-grace-seconds", "240")  # on a machine with much else to do, too
    with RealServer("--max-num-seqs", "8", *grace) as server, ThreadPoolExecutor(LOAD) as pool:
        answers = [pool.submit(ask, server, index) for index in range(LOAD)]
        wait_until_accepted(server)
        server.terminate()

        assert server.wait() == 0
        assert all(is_complete(answer.result()) for answer in answers)


def test_the_engine_killed_under_load_fails_open_requests_and_the_server() -> None:
    with RealServer("--max-num-seqs", "8") as server, ThreadPoolExecutor(LOAD) as pool:
        answers = [pool.submit(ask, server, index) for index in range(LOAD)]
        wait_until_accepted(server)
        server.kill_engine()

        assert server.wait() == 137
        failed = [answer.result() for answer in answers if not is_complete(answer.result())]
        assert failed
        assert all('"code": "engine_dead"' in response.text for response in failed)
        assert {response.status_code for response in failed} <= {200, 503}  # 200: its stream had begun


def test_a_thousand_requests_with_random_disconnects_leave_no_page_in_use() -> None:
    with RealServer("--max-queued-requests", "1000", "--max-num-seqs", "16") as server:
        asyncio.run(disconnect_at_random(server.url, requests=1000, at_once=50))

        eventually(lambda: server.metric("dllm_requests_running") == 0, "nothing runs")
        eventually(lambda: server.metric("dllm_requests_waiting") == 0, "nothing waits")
        eventually(lambda: server.metric('dllm_kv_pages{state="used"}') == 0, "no page is used")
        assert server.metric("dllm_requests_cancelled_total") > 100
        assert server.complete(prompt=[1], max_tokens=2)["usage"]["completion_tokens"] <= 2


async def disconnect_at_random(url: str, *, requests: int, at_once: int) -> None:
    """Each request is left after a random part of the answer, or before any of it, or never."""
    chance = random.Random(7)
    host, port = url.removeprefix("http://").split(":")
    places = asyncio.Semaphore(at_once)

    async def one(index: int) -> None:
        body = {"prompt": [index % 900 + 1] * 8, "max_tokens": 16, "stream": index % 2 == 0}
        body["diffusion"] = {"unmasking": {"strategy": "quota", "value": 4}, "block_length": 8}
        content = json.dumps(body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
        patience = chance.choice([0.0, 0.001, 0.01, 0.05, 5.0])
        async with places:
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"{head}Connection: close\r\n\r\n".encode() + content)
                await asyncio.wait_for(reader.read(), patience)
            except TimeoutError:
                pass
            finally:
                writer.transport.abort() if chance.random() < 0.5 else writer.close()

    await asyncio.gather(*(one(index) for index in range(requests)))
