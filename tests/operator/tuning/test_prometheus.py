"""The pods' series as a Prometheus server gives them back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
from aiohttp import web
from dllm_operator.observing.prometheus import query
from dllm_operator.observing.scrape import Scrape
from dllm_operator.tuning.reading import parse_reading
from engine_metrics import make_snapshot, make_window, metrics_text
from prometheus_client.parser import text_string_to_metric_families

TEXT = metrics_text(make_snapshot(make_window(0), make_window(1)))


def samples(pod: str, text: str = TEXT, **lies: str) -> list[dict[str, Any]]:
    """As after a scrape: with the target's own labels."""
    target = {"namespace": "team-a", "pod": pod, "job": "team-a/chat", "instance": "10.0.0.1:8000"}
    return [
        {"metric": {"__name__": s.name, **s.labels, **target}, "value": [1.0, lies.get(s.name, str(s.value))]}
        for family in text_string_to_metric_families(text)
        for s in family.samples
    ]


def ask(result: list[dict[str, Any]] | str, *pods: str, status: int = 200) -> tuple[Scrape, list[str]]:
    """What the query finds, and what was asked."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.query["query"])
        body = result if isinstance(result, str) else json.dumps({"data": {"result": result}})
        return web.Response(text=body, status=status)

    async def run() -> Scrape:
        app = web.Application()
        app.router.add_get("/api/v1/query", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with aiohttp.ClientSession() as session:
                return await query(session, f"http://127.0.0.1:{runner.addresses[0][1]}/", "team-a", pods)
        finally:
            await runner.cleanup()

    return asyncio.run(run()), asked


def test_a_reading_is_the_same_by_either_way() -> None:
    found, asked = ask([*samples("a"), *samples("b")], "a", "b")

    assert found.readings == {"a": parse_reading(TEXT), "b": parse_reading(TEXT)}
    assert found.silent == {}
    assert asked == ['{__name__=~"dllm_.+",namespace="team-a",pod=~"a|b"}']


def test_a_pod_that_it_does_not_know_or_lies_about_is_silent() -> None:
    found, _ = ask(samples("b", dllm_device_memory_bytes="NaN"), "a", "b")

    assert found.readings == {}
    assert found.silent == {
        "a": "Prometheus has no series of it",
        "b": "dllm_device_memory_bytes is nan",
    }


def test_a_server_that_fails_silences_all_and_raises_nothing() -> None:
    assert ask("", "a", "b", status=503)[0].silent == dict.fromkeys("ab", "Prometheus: metrics answer 503")
    for nonsense in ("no JSON", "[]", '{"data": {"result": [{}]}}'):
        assert "no answer of its query API" in ask(nonsense, "a")[0].silent["a"]
