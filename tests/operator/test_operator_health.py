from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from dllm_operator.process.health import AUDIT_MISSED_SECONDS, STALLED_SECONDS, Health, serve_health
from dllm_operator.process.telemetry import OperatorMetrics
from prometheus_client.parser import text_string_to_metric_families


def fetch(path: str, health: Health, metrics: Callable[[], bytes] = bytes) -> httpx.Response:
    async def scenario() -> httpx.Response:
        async with serve_health(0, health, metrics) as port, httpx.AsyncClient() as client:
            return await client.get(f"http://127.0.0.1:{port}{path}")

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("health", "now", "problem"),
    [
        pytest.param(Health(), 1e6, None, id="standby"),
        pytest.param(Health(stalled_seconds=1e6), 1e6, None, id="standby that lags"),
        pytest.param(Health(is_leading=True, led_since=100.0), 110.0, None, id="leads since a moment"),
        pytest.param(Health(True, 0.0, 0.0, 1000.0), 1010.0, None, id="leads and was audited"),
        pytest.param(Health(True, 0.0, STALLED_SECONDS, 1000.0), 1010.0, None, id="lags a little"),
        pytest.param(
            Health(True, 0.0, STALLED_SECONDS + 5, 1000.0),
            1010.0,
            "watch stalled: the view has lagged for 125 s",
            id="a dead watch",
        ),
        pytest.param(
            Health(True, 0.0, 0.0, 1000.0),
            1001.0 + AUDIT_MISSED_SECONDS,
            "no look at the API server for 301 s",
            id="audits have stopped",
        ),
        pytest.param(
            Health(is_leading=True, led_since=100.0),
            101.0 + AUDIT_MISSED_SECONDS,
            "no look at the API server for 301 s",
            id="never audited",
        ),
    ],
)
def test_only_a_leader_whose_watches_are_not_known_to_keep_up_has_a_problem(
    health: Health, now: float, problem: str | None
) -> None:
    assert health.problem(now) == problem


@pytest.mark.parametrize(
    ("health", "status"),
    [
        pytest.param(Health(), 200, id="standby"),
        pytest.param(Health(is_leading=True, led_since=float("inf")), 200, id="leads"),
        pytest.param(Health(is_leading=True, stalled_seconds=1e6), 503, id="stalled"),
    ],
)
def test_liveness_answers_over_http_and_says_why(health: Health, status: int) -> None:
    answer = fetch("/healthz", health)

    assert answer.status_code == status
    assert answer.text.startswith("ok" if status == 200 else "watch stalled")


@pytest.mark.parametrize(("is_leading", "text"), [(True, "leading"), (False, "standby")])
def test_readiness_tells_leader_from_standby_and_both_are_ready(is_leading: bool, text: str) -> None:
    answer = fetch("/readyz", Health(is_leading=is_leading))

    assert (answer.status_code, answer.text) == (200, text)


def test_metrics_are_served_in_prometheus_format() -> None:
    metrics = OperatorMetrics()
    metrics.depth(3)
    metrics.finished(0.2, None)
    metrics.finished(0.3, ValueError("x"))
    metrics.watch_event("Pod")
    metrics.leading(is_leader=True)
    metrics.stalled(12.5)

    answer = fetch("/metrics", Health(), metrics.render)

    assert answer.headers["content-type"].startswith("text/plain")
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert values["dllm_operator_queue_depth",] == 3
    assert values["dllm_operator_reconciles_total", "success"] == 1
    assert values["dllm_operator_reconciles_total", "error"] == 1
    assert values["dllm_operator_reconcile_seconds_count",] == 2
    assert values["dllm_operator_watch_events_total", "Pod"] == 1
    assert values["dllm_operator_is_leader",] == 1
    assert values["dllm_operator_watch_stalled_seconds",] == 12.5


def test_counters_are_there_before_anything_happened() -> None:
    text = OperatorMetrics().render().decode()

    for outcome in ("success", "error"):
        assert f'dllm_operator_reconciles_total{{outcome="{outcome}"}} 0.0' in text


def test_the_port_is_free_again_afterwards() -> None:
    async def scenario() -> None:
        async with serve_health(0, Health(), bytes) as port:
            pass
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient() as client:
                await client.get(f"http://127.0.0.1:{port}/healthz")

    asyncio.run(scenario())
