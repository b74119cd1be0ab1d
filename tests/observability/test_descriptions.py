"""What is generated from the descriptions, and what the descriptions say of each other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.process.fleet import FleetCollector
from dllm_operator.process.telemetry import OPERATOR_FAMILIES, OperatorMetrics
from dllm_operator.reporting.reason import ConditionReason, FailureReason, NewsReason
from dllm_operator.scaling.policy import ScalingReason
from dllm_operator.tuning.decision import Reason as TuningReason
from dllm_server.metric import MetricFamily
from dllm_server.telemetry.metrics import SERVER_FAMILIES, Metrics
from prometheus_client.parser import text_string_to_metric_families

from observability.alerts import ALERTS, GROUPS
from observability.boards import BOARDS
from observability.generated import generated
from observability.panel import Board
from tests.observability.promql import filled_in, problems
from tests.server.api.scripted_engine import make_snapshot

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
REASONS = (ConditionReason, FailureReason, NewsReason, ScalingReason, TuningReason)
FAMILIES = (*SERVER_FAMILIES, *OPERATOR_FAMILIES)
LABELS = {sample: set(family.labels) for family in FAMILIES for sample in family.samples}


def described(families: tuple[MetricFamily, ...]) -> dict[str, tuple[str, str]]:
    return {family.name: (str(family.kind), family.text) for family in families}


def exposed(text: str) -> dict[str, tuple[str, str]]:
    """Types and texts of what is exposed; the text format keeps the suffix of a counter in its name."""
    found = {}
    for family in text_string_to_metric_families(text):
        name = family.name.removesuffix("_total")
        if not name.startswith("process_"):
            found[name] = (family.type, family.documentation)
    return found


def queries(board: Board) -> list[str]:
    chosen = [f"{variable.selector}" for variable in board.variables]
    return [filled_in(query) for query in [*chosen, *(q.expression for p in board.panels for q in p.queries)]]


@pytest.mark.parametrize("path", generated())
def test_a_generated_file_is_what_the_descriptions_say(path: str) -> None:
    assert (ROOT / path).read_text() == generated()[path], "run: python -m observability"


def test_the_server_exposes_what_is_described_and_nothing_else() -> None:
    content = Metrics(make_snapshot, "tiny").render()

    assert exposed(content.decode()) == described(SERVER_FAMILIES)


def test_the_operator_exposes_what_is_described_and_nothing_else() -> None:
    metrics = OperatorMetrics()
    metrics.collect(FleetCollector(ClusterView()))

    assert exposed(metrics.render().decode()) == described(OPERATOR_FAMILIES)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_dashboard_asks_only_for_series_and_labels_that_there_are(board: Board) -> None:
    wrong = {query: found for query in queries(board) if (found := problems(query, LABELS))}

    assert wrong == {}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_asks_only_for_series_and_labels_that_there_are(alert) -> None:
    assert problems(alert.expression, LABELS) == []


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("sum(dllm_requests_runing)", "no series dllm_requests_runing"),
        ("rate(dllm_oom[5m])", "no series dllm_oom"),
        ('dllm_kv_pages{stat="used"}', "no label stat"),
        ("sum by (pool) (dllm_kv_pages)", "no label pool"),
    ],
)
def test_a_query_for_what_there_is_not_is_found(query: str, problem: str) -> None:
    assert problems(query, LABELS) == [problem]


def test_panels_of_a_dashboard_have_names_of_their_own() -> None:
    for board in BOARDS:
        titles = [panel.title for panel in board.panels]
        assert len(titles) == len(set(titles)), board.name


def test_dashboards_are_those_of_their_source_and_link_to_each_other() -> None:
    for board in BOARDS:
        shown = json.loads(generated()[f"charts/dllm-operator/files/dashboards/{board.name}.json"])
        panels = [panel for panel in shown["panels"] if panel["type"] != "row"]
        assert shown["uid"] == f"dllm-{board.name}"
        assert {panel["datasource"]["uid"] for panel in panels} == {"$datasource"}
        assert [panel["title"] for panel in panels] == [panel.title for panel in board.panels]
        assert [link["tags"] for link in shown["links"]] == [shown["tags"]]


def test_the_runbook_has_a_section_for_every_alert_and_no_other() -> None:
    told = re.findall(r"(?m)^### (DLLM\w+)$", RUNBOOK)

    assert told == [alert.name for group in GROUPS.values() for alert in group]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alerts_section_says_what_it_means_and_what_to_do(alert) -> None:
    section = RUNBOOK.split(f"### {alert.name}\n")[1].split("\n##")[0]

    assert re.search(r"(?m)^Meaning: \S", section)
    assert re.search(r"(?m)^Do: \S", section)


@pytest.mark.parametrize("kind", REASONS)
def test_the_runbook_explains_every_reason(kind) -> None:
    rows = dict(re.findall(r"(?m)^\| `(\w+)` \| (\S.* \| \S.*) \|$", RUNBOOK))

    assert [str(reason) for reason in kind if str(reason) not in rows] == []


def test_the_runbook_explains_no_reason_that_there_is_not() -> None:
    known = {str(reason) for kind in REASONS for reason in kind}

    assert set(re.findall(r"(?m)^\| `(\w+)` \|", RUNBOOK)) <= known
