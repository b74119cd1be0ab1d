"""What the tuner sees and does."""

from __future__ import annotations

from observability.boards.series import BUDGET, OF_SERVERS, POOLS, TOLD, areas, lines
from observability.panel import Board, Panel, Query, Row, Shape, rate

TUNING = Board(
    "tuning",
    "dLLM-Serve / Tuning",
    "What the tuner sees, what it changed, and why.",
    OF_SERVERS,
    (
        Row(
            "Decisions",
            (
                Panel(
                    "Pools",
                    (Query(f'dllm_operator_pool_condition{{{TOLD}, pool=~"$pool"}}'),),
                    shape=Shape.TABLE,
                    text="The reason of the last look; docs/runbook.md says what to do.",
                    width=24,
                ),
                areas(
                    "Looks by reason",
                    rate("dllm_operator_tuning_looks_total", "", "reason"),
                    "{{reason}}",
                    "ops",
                    "Of all pools.",
                ),
                areas(
                    "Changes in an hour",
                    "sum by (reason) (increase(dllm_operator_tuning_changes_total[1h]))",
                    "{{reason}}",
                    text="Of all pools.",
                ),
                lines(
                    "Pods that could not be read in an hour",
                    "sum(increase(dllm_operator_tuning_silent_pods_total[1h]))",
                    "pods",
                ),
            ),
        ),
        Row(
            "Settings in force",
            (
                Panel(
                    "Token budget",
                    tuple(
                        Query(
                            f'max by (pod) ({series}{{{POOLS}, setting="{BUDGET}"}})',
                            f"{{{{pod}}}} {what}",
                        )
                        for series, what in (
                            ("dllm_live_setting", "set"),
                            ("dllm_live_setting_floor", "needed"),
                            ("dllm_live_setting_ceiling", "at most"),
                        )
                    ),
                    text="Needed by the requests in flight; at most while the other settings stay.",
                ),
                lines(
                    "Other settings",
                    f'max by (pod, setting) (dllm_live_setting{{{POOLS}, setting!="{BUDGET}"}})',
                    "{{pod}} {{setting}}",
                ),
                Panel(
                    "Generation",
                    (
                        Query(f"max by (pod) (dllm_tuning_generation{{{POOLS}}})", "{{pod}}"),
                        Query(f"max by (pod) (dllm_tuning_refused{{{POOLS}}})", "{{pod}} refuses"),
                        Query(
                            f"sum by (pod) (increase(dllm_tuning_errors_total{{{POOLS}}}[1h]))",
                            "{{pod}} errors in an hour",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "What it goes by",
            (
                Panel(
                    "Most memory held, in the last windows",
                    (
                        Query(
                            "max by (pod) (sum by (pod, window) "
                            f'(dllm_memory_window_peak_bytes{{{POOLS}, owner!="free"}}))',
                            "{{pod}}",
                        ),
                        Query(f"max by (pod) (dllm_device_memory_bytes{{{POOLS}}})", "{{pod}} device"),
                    ),
                    "bytes",
                ),
                lines(
                    "Mean time of a step",
                    f"{rate('dllm_step_fit_seconds_total', POOLS, 'pod, phase')} "
                    f"/ ({rate('dllm_step_fit_steps_total', POOLS, 'pod, phase')} > 0)",
                    "{{pod}} {{phase}}",
                    "s",
                    "Without the steps that the fit leaves out.",
                ),
                lines(
                    "Steps left out of the fit",
                    rate("dllm_step_fit_left_out_total", POOLS, "pod, reason"),
                    "{{pod}} {{reason}}",
                    "ops",
                ),
                lines(
                    "Steps that the budget kept a request out of",
                    f"max by (pod) (dllm_window_tight_steps{{{POOLS}}})",
                    "{{pod}}",
                    text="Most in one of the last windows.",
                ),
                lines(
                    "Fill of batches",
                    f"avg by (pod) (dllm_window_mean_batch_fill{{{POOLS}}})",
                    "{{pod}}",
                    "percentunit",
                    "Mean of the last windows.",
                ),
                lines(
                    "Fewest free KV pages",
                    f"min by (pod) (dllm_window_least_free_pages{{{POOLS}}})",
                    "{{pod}}",
                    text="In the last windows.",
                ),
            ),
        ),
    ),
)
