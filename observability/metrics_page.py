"""docs/metrics.md, from what the server and the operator register."""

from __future__ import annotations

from collections.abc import Iterable

from dllm_operator.process.telemetry import OPERATOR_FAMILIES
from dllm_server.metric import MetricFamily
from dllm_server.telemetry.engine_collector import ENGINE_FAMILIES
from dllm_server.telemetry.request_metrics import REQUEST_FAMILIES

HEADER = """# Metrics

Names as queries use them: a counter ends in `_total`; a histogram has `_bucket` (label `le`), `_count` and
`_sum`.
This page is generated: `python -m observability`.

The chart brings [dashboards and alerts](operations.md#dashboards-and-alerts) over these; the
[runbook](runbook.md) says what to do about an alert.
"""
SERVER = """## Server

`GET /metrics` on the API's port, or on `--metrics-port`; in pods of a resource on the port named `metrics`. A
PodMonitor of the operator's adds the labels `namespace`, `pod`, `app_kubernetes_io_instance` (the resource)
and `serving_dllm_dev_pool`. Series with `vllm:` repeat others for tools that know only those.
"""
OPERATOR = """## Operator

`GET /metrics` on port 8080 of the operator's pods. Only the leader has series of resources. Their
`namespace`, `name` and `pool` are the resource's, so a scrape must keep them: `honorLabels: true`, as the
chart's PodMonitor has. Beside these there are `process_cpu_seconds_total`, `process_resident_memory_bytes`
and the others of prometheus-client's `ProcessCollector`.
"""


def metrics_page() -> str:
    """The page's text."""
    return "\n".join(
        [
            HEADER,
            SERVER,
            "### Requests\n",
            _table(REQUEST_FAMILIES),
            "### Engine\n",
            _table(ENGINE_FAMILIES),
            OPERATOR,
            _table(OPERATOR_FAMILIES),
        ]
    )


def _table(families: Iterable[MetricFamily]) -> str:
    rows = ["| metric | type | labels | unit | |", "|---|---|---|---|---|"]
    for family in families:
        name = family.samples[0].removesuffix("_bucket")
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{name}` | {family.kind} | {labels} | {family.unit} | {family.text} |")
    return "\n".join(rows) + "\n"
