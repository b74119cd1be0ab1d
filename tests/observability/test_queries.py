"""Every query of dashboards and alerts, against a Prometheus that scrapes a server and an operator."""

from __future__ import annotations

import asyncio
import math
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.process.fleet import FleetCollector
from dllm_operator.process.health import Health, serve_health
from dllm_operator.process.telemetry import OperatorMetrics
from dllm_operator.render.integrations import pod_monitor, series_label
from dllm_operator.tuning.decision import Reason

from observability.alerts import ALERTS
from observability.boards import BOARDS
from observability.panel import Board
from tests.cluster.resources import eventually
from tests.observability.promql import asked, filled_in
from tests.observability.real_prometheus import RealPrometheus, Target
from tests.operator.objects import NAME, NAMESPACE, make_body, make_deployment, make_pod, make_resource
from tests.server.api.real_server import RealServer

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no prometheus: install Debian's package"
)

RULES = Path(__file__).resolve().parents[2] / "charts/dllm-operator/files/alerts.yaml"
POOL = "l4"
DATA_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Scraped:
    prometheus: RealPrometheus
    server: RealServer
    operator: OperatorMetrics

    def work(self) -> None:
        """Once of everything that can be had at will, so that every rate has something to tell."""
        self.server.complete(prompt="3+4=", max_tokens=16, ignore_eos=True)
        assert self.server.http.post("/v1/completions", json={"prompt": []}).status_code == 400
        self.operator.finished(0.01, None)

    def exposed(self) -> set[str]:
        """Names of all samples of the server and the operator."""
        texts = [self.server.http.get("/metrics").text, self.operator.render().decode()]
        return {name for text in texts for name in re.findall(r"(?m)^([a-z][\w:]*)", text)}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """A server that works and an operator of two resources, one of which is not ready."""
    folder = tmp_path_factory.mktemp("prometheus")
    flags = ("--memory-window-seconds", "1", "--max-num-batched-tokens", "512", "--kv-pool-bytes", "64MiB")
    operator = told()
    with RealServer(*flags, model="embedded") as server, operator_port(operator) as port:
        targets = [
            Target(server.url.removeprefix("http://"), labels_of_a_pod()),
            Target(f"127.0.0.1:{port}", {"namespace": "dllm-system", "pod": "operator-0"}, is_honest=True),
        ]
        with RealPrometheus(folder, RULES, targets) as prometheus:
            yield Scraped(prometheus, server, operator)


def labels_of_a_pod() -> dict[str, str]:
    """As the PodMonitor of a resource has them on the series of a pod."""
    pod = make_pod(pool=POOL)["metadata"]
    monitor = pod_monitor(make_resource())
    copied = {series_label(name): pod["labels"][name] for name in monitor["spec"]["podTargetLabels"]}
    return {"namespace": pod["namespace"], "pod": pod["name"]} | copied


def told() -> OperatorMetrics:
    """An operator that has met everything once."""
    view, metrics = ClusterView(), OperatorMetrics()
    metrics.collect(FleetCollector(view))
    view.children["Deployment"].put(make_deployment(POOL, replicas=1))
    view.pods.put(make_pod(pool=POOL, is_ready=True))
    tuning = {"reason": str(Reason.SATISFIED), "converged": True}
    for name, status, reason in ((NAME, "True", "PodsReady"), ("other", "False", "CrashLoop")):
        conditions = [
            {"type": "Ready", "status": status, "reason": reason},
            {"type": "Progressing", "status": "False", "reason": "Settled"},
        ]
        pools = [{"name": POOL, "tuning": tuning}]
        view.resources.put(
            make_body(uid=name, name=name) | {"status": {"conditions": conditions, "pools": pools}}
        )
    metrics.leading(is_leader=True)
    metrics.watch_event("Pod")
    metrics.looked(Reason.SATISFIED, silent=1)
    metrics.changed(Reason.MODEL_STEP)
    return metrics


@contextmanager
def operator_port(metrics: OperatorMetrics) -> Iterator[int]:
    """The operator's own HTTP port, as its process serves it."""
    started, ended = threading.Event(), asyncio.Event()
    ports: list[int] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with serve_health(0, Health(is_leading=True), metrics.render) as port:
            ports.append(port)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(30)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def is_data(series: list[dict[str, list[str]]]) -> bool:
    return any(not math.isnan(float(one["value"][1])) for one in series)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_query_of_a_dashboard_has_data(scraped: Scraped, board: Board) -> None:
    def silent() -> list[str]:
        queries = [(panel.title, query.expression) for panel in board.panels for query in panel.queries]
        queries += [(variable.name, variable.selector) for variable in board.variables]
        return [
            f"{title}: {query}"
            for title, query in queries
            if not is_data(scraped.prometheus.ask(filled_in(query)))
        ]

    def all_have_data() -> None:
        scraped.work()
        assert silent() == []

    eventually(all_have_data, DATA_SECONDS)


def test_every_series_that_a_query_names_is_exposed(scraped: Scraped) -> None:
    queries = [query.expression for board in BOARDS for panel in board.panels for query in panel.queries]
    queries += [variable.selector for board in BOARDS for variable in board.variables]
    queries += [alert.expression for alert in ALERTS]
    scraped.work()

    named = {name for query in queries for name in asked(filled_in(query)).series}

    assert named - scraped.exposed() == set()


def test_prometheus_evaluates_every_alert_and_the_resource_that_is_not_ready_is_all_it_finds(
    scraped: Scraped,
) -> None:
    def all_evaluated() -> None:
        rules = scraped.prometheus.rules()
        assert [rule["name"] for rule in rules] == [alert.name for alert in ALERTS]
        assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
        told = {alert["labels"]["alertname"]: alert["labels"] for rule in rules for alert in rule["alerts"]}
        assert set(told) == {"DLLMResourceNotReady"}
        assert told["DLLMResourceNotReady"]["namespace"] == NAMESPACE
        assert told["DLLMResourceNotReady"]["name"] == "other"

    eventually(all_evaluated, DATA_SECONDS)
