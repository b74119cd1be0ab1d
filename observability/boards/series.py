"""What the boards' queries select, and the commonest panels.

Series of the operator carry the names of a resource, those of the pods the pods' labels.
"""

from __future__ import annotations

from dllm_operator.cluster.labels import INSTANCE, POOL
from dllm_operator.render.integrations import series_label

from observability.panel import Panel, Query, Shape, Variable, rate

INSTANCE_LABEL, POOL_LABEL = series_label(INSTANCE), series_label(POOL)
RESOURCE = f"namespace, {INSTANCE_LABEL}"
OF_RESOURCE = f"{{{{namespace}}}}/{{{{{INSTANCE_LABEL}}}}}"
BUDGET = "max_num_batched_tokens"

TOLD = 'namespace=~"$namespace", name=~"$name"'
SERVED = f'namespace=~"$namespace", {INSTANCE_LABEL}=~"$name"'
POOLS = f'{SERVED}, {POOL_LABEL}=~"$pool"'
PODS = f'{POOLS}, pod=~"$pod"'

OF_SERVERS = (
    Variable("namespace", "namespace", "dllm_requests_running", "Namespace"),
    Variable("name", INSTANCE_LABEL, 'dllm_requests_running{namespace=~"$namespace"}', "Resource"),
    Variable("pool", POOL_LABEL, f"dllm_requests_running{{{SERVED}}}", "Pool"),
)


def lines(title: str, expression: str, legend: str, unit: str = "short", text: str = "") -> Panel:
    return Panel(title, (Query(expression, legend),), unit, text=text)


def areas(title: str, expression: str, legend: str, unit: str = "short", text: str = "") -> Panel:
    return Panel(title, (Query(expression, legend),), unit, Shape.AREAS, text)


def number(title: str, expression: str, text: str = "") -> Panel:
    return Panel(title, (Query(expression),), shape=Shape.NUMBER, text=text, width=4)


def p95(histogram: str, selector: str, by: str) -> str:
    return f"histogram_quantile(0.95, {rate(f'{histogram}_bucket', selector, f'le, {by}')})"
