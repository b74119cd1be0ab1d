"""All resources of the operators, and the operators."""

from __future__ import annotations

from observability.boards.series import (
    OF_RESOURCE,
    RESOURCE,
    SERVED,
    TOLD,
    areas,
    lines,
    number,
    p95,
)
from observability.panel import Board, Panel, Query, Row, Shape, Variable, quantiles, rate


def _conditions(kinds: str, status: str) -> str:
    return f'dllm_operator_condition{{{TOLD}, type=~"{kinds}", {status}}}'


def _of_operator(expression: str) -> str:
    """Of a series that every process has."""
    return f"{expression} and on (namespace, pod) dllm_operator_is_leader"


READY = _conditions("Ready", 'status="True"')
NOT_READY = _conditions("Ready", 'status!="True"')
NOT_HOLDING = _conditions("Ready|SpecValid|PoolsScheduled|IntegrationsReady", 'status!="True"')

FLEET = Board(
    "fleet",
    "dLLM-Serve / Fleet",
    "All resources of the operators: what is not as it was asked for, and how much they serve.",
    (
        Variable("namespace", "namespace", "dllm_operator_condition", "Namespace"),
        Variable("name", "name", 'dllm_operator_condition{namespace=~"$namespace"}', "Resource"),
    ),
    (
        Row(
            "Resources",
            (
                number("Ready", f"count({READY}) or vector(0)"),
                number("Not ready", f"count({NOT_READY}) or vector(0)"),
                number("Pods that serve", f"sum(dllm_operator_pool_ready_pods{{{TOLD}}})"),
                number("Pods wanted", f"sum(dllm_operator_pool_wanted_pods{{{TOLD}}})"),
                number(
                    "Pools that went back",
                    f"sum(dllm_operator_pool_rolled_back{{{TOLD}}})",
                    "From a rollout that nobody asked for.",
                ),
                number(
                    "Left to others",
                    "sum(dllm_operator_left_resources)",
                    "Resources in this operator's namespaces that another operator has claimed.",
                ),
                Panel(
                    "Conditions that do not hold",
                    (Query(NOT_HOLDING),),
                    shape=Shape.TABLE,
                    text="By reason; docs/runbook.md says what to do.",
                    width=12,
                ),
                Panel(
                    "Rollouts",
                    (Query(f'dllm_operator_condition{{{TOLD}, type="Progressing"}}'),),
                    shape=Shape.TABLE,
                    text="Settled where nothing is under way.",
                    width=12,
                ),
                Panel(
                    "Pods of pools",
                    (
                        Query(
                            f"sum by (namespace, name, pool) (dllm_operator_pool_ready_pods{{{TOLD}}})",
                            "{{namespace}}/{{name}} {{pool}} serving",
                        ),
                        Query(
                            f"sum by (namespace, name, pool) (dllm_operator_pool_wanted_pods{{{TOLD}}})",
                            "{{namespace}}/{{name}} {{pool}} wanted",
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Not ready, by reason",
                    (
                        Query(
                            f"count by (reason) ({NOT_READY})",
                            "{{reason}}",
                        ),
                    ),
                    shape=Shape.AREAS,
                    width=12,
                ),
            ),
        ),
        Row(
            "Traffic",
            (
                areas(
                    "Requests by outcome",
                    rate("dllm_requests_total", SERVED, "status"),
                    "{{status}}",
                    "reqps",
                ),
                lines(
                    "Generated tokens",
                    rate("vllm:generation_tokens_total", SERVED, RESOURCE),
                    OF_RESOURCE,
                    "cps",
                    "A second.",
                ),
                lines(
                    "Waiting requests",
                    f"sum by ({RESOURCE}) (dllm_requests_waiting{{{SERVED}}})",
                    OF_RESOURCE,
                ),
                lines(
                    "Time to the first block, p95",
                    p95("dllm_first_block_seconds", SERVED, RESOURCE),
                    OF_RESOURCE,
                    "s",
                ),
                lines(
                    "Time to the end, p95",
                    p95("dllm_e2e_seconds", SERVED, RESOURCE),
                    OF_RESOURCE,
                    "s",
                ),
                lines(
                    "KV pages in use",
                    f'sum by ({RESOURCE}) (dllm_kv_pages{{{SERVED}, state="used"}}) '
                    f"/ sum by ({RESOURCE}) (dllm_kv_pages{{{SERVED}}})",
                    OF_RESOURCE,
                    "percentunit",
                ),
            ),
        ),
        Row(
            "Operator",
            (
                lines("Leaders", "dllm_operator_is_leader", "{{pod}}"),
                areas(
                    "Reconciles by outcome",
                    rate("dllm_operator_reconciles_total", "", "outcome"),
                    "{{outcome}}",
                    "ops",
                ),
                Panel("Time of a reconcile", quantiles("dllm_operator_reconcile_seconds", ""), "s"),
                lines("Resources waiting", "dllm_operator_queue_depth", "{{pod}}"),
                areas(
                    "Watch events", rate("dllm_operator_watch_events_total", "", "kind"), "{{kind}}", "ops"
                ),
                lines("Lag of the watches", "dllm_operator_watch_stalled_seconds", "{{pod}}", "s"),
                areas(
                    "Internal errors in an hour",
                    "sum by (where) (increase(dllm_operator_internal_errors_total[1h]))",
                    "{{where}}",
                ),
                lines("Memory", _of_operator("process_resident_memory_bytes"), "{{pod}}", "bytes"),
                lines(
                    "CPU",
                    _of_operator("rate(process_cpu_seconds_total[$__rate_interval])"),
                    "{{pod}}",
                    "short",
                    "Cores.",
                ),
            ),
        ),
    ),
)
