"""The servers of a resource."""

from __future__ import annotations

from observability.boards.series import OF_SERVERS, PODS, POOLS, areas, lines, number, p95
from observability.panel import Board, Panel, Query, Row, Variable, quantiles, rate


def _a_step(counter: str) -> str:
    return f"{rate(counter, PODS, 'pod')} / {rate('dllm_steps_total', PODS, 'pod')}"


ENGINE = Board(
    "engine",
    "dLLM-Serve / Engine",
    "Servers of a resource: load, latency, steps, memory by owner.",
    (*OF_SERVERS, Variable("pod", "pod", f"dllm_requests_running{{{POOLS}}}", "Pod")),
    (
        Row(
            "Load",
            (
                Panel(
                    "Requests",
                    (
                        Query(f"sum by (pod) (dllm_requests_running{{{PODS}}})", "{{pod}} running"),
                        Query(f"sum by (pod) (dllm_requests_waiting{{{PODS}}})", "{{pod}} waiting"),
                    ),
                ),
                areas(
                    "Answers by outcome", rate("dllm_requests_total", PODS, "status"), "{{status}}", "reqps"
                ),
                areas(
                    "Choices by finish reason",
                    rate("vllm:request_success_total", PODS, "finished_reason"),
                    "{{finished_reason}}",
                    "ops",
                ),
                Panel(
                    "Tokens",
                    (
                        Query(rate("vllm:prompt_tokens_total", PODS), "prompt"),
                        Query(rate("vllm:generation_tokens_total", PODS), "generated"),
                        Query(rate("dllm_committed_tokens_total", PODS), "committed"),
                    ),
                    "cps",
                    text="A second. Committed are also those behind a stop token or string.",
                ),
                Panel(
                    "Requests that left",
                    (
                        Query(rate("dllm_requests_refused_total", PODS), "refused: queue full"),
                        Query(rate("dllm_requests_cancelled_total", PODS), "client left"),
                        Query(rate("dllm_engine_requests_refused_total", PODS), "can never fit"),
                        Query(rate("dllm_engine_requests_cancelled_total", PODS), "cancelled in the engine"),
                    ),
                    "reqps",
                ),
                lines(
                    "Fill of a batch",
                    f"avg by (pod) (dllm_batch_fill_ratio{{{PODS}}})",
                    "{{pod}}",
                    "percentunit",
                    "Query tokens of the last step / token budget.",
                ),
            ),
        ),
        Row(
            "Latency",
            (
                Panel("Time in the queue", quantiles("dllm_queue_seconds", PODS), "s"),
                Panel(
                    "Time to the first block",
                    quantiles("dllm_first_block_seconds", PODS),
                    "s",
                    text="From arrival. A block's tokens come together.",
                ),
                Panel("Time to the end", quantiles("dllm_e2e_seconds", PODS), "s", text="From arrival."),
            ),
        ),
        Row(
            "Steps",
            (
                areas("Steps", rate("dllm_steps_total", PODS, "phase"), "{{phase}}", "ops"),
                lines(
                    "Time of a step, p95",
                    p95("dllm_step_seconds", PODS, "phase"),
                    "{{phase}}",
                    "s",
                ),
                areas("Query tokens", rate("dllm_tokens_total", PODS, "phase"), "{{phase}}", "cps"),
                lines(
                    "Query tokens a step",
                    _a_step("dllm_tokens_total"),
                    "{{pod}}",
                ),
                lines(
                    "Committed tokens a step",
                    _a_step("dllm_committed_tokens_total"),
                    "{{pod}}",
                ),
                Panel(
                    "Limits now",
                    (
                        Query(f"max by (pod) (dllm_token_budget{{{PODS}}})", "{{pod}} token budget"),
                        Query(f"max by (pod) (dllm_max_num_seqs{{{PODS}}})", "{{pod}} requests"),
                        Query(f"max by (pod) (dllm_max_num_logits{{{PODS}}})", "{{pod}} logits rows"),
                    ),
                ),
            ),
        ),
        Row(
            "Memory",
            (
                areas("By owner", f"sum by (owner) (dllm_memory_bytes{{{PODS}}})", "{{owner}}", "bytes"),
                Panel(
                    "Largest so far and predicted",
                    (
                        Query(
                            f'sum by (pod) (dllm_memory_peak_bytes{{{PODS}, owner!="free"}})',
                            "{{pod}} largest",
                        ),
                        Query(
                            f'sum by (pod) (dllm_memory_predicted_bytes{{{PODS}, owner!="free"}})',
                            "{{pod}} predicted",
                        ),
                        Query(f"max by (pod) (dllm_device_memory_bytes{{{PODS}}})", "{{pod}} device"),
                    ),
                    "bytes",
                ),
                areas("KV pages", f"sum by (state) (dllm_kv_pages{{{PODS}}})", "{{state}}"),
                Panel(
                    "Prefix cache",
                    (
                        Query(rate("dllm_prefix_cache_queried_tokens_total", PODS), "looked up"),
                        Query(rate("dllm_prefix_cache_hit_tokens_total", PODS), "found"),
                        Query(rate("dllm_prefix_cache_evicted_tokens_total", PODS), "evicted"),
                    ),
                    "cps",
                    text="Tokens a second, of block-causal models.",
                ),
                lines("Preemptions", rate("dllm_preemptions_total", PODS, "pod"), "{{pod}}", "ops"),
                areas(
                    "Out of memory in an hour",
                    f"sum by (phase) (increase(dllm_oom_total{{{PODS}}}[1h]))",
                    "{{phase}}",
                    text="Contained: the step's requests were tried again.",
                ),
            ),
        ),
        Row(
            "Soundness",
            (
                number("Sound models", f"sum(dllm_model_sound{{{PODS}}})"),
                number("Servers", f"count(dllm_model_sound{{{PODS}}})"),
                lines(
                    "Requests with a NaN or an infinity in an hour",
                    f"sum by (pod) (increase(dllm_requests_not_finite_total{{{PODS}}}[1h]))",
                    "{{pod}}",
                ),
            ),
        ),
    ),
)
