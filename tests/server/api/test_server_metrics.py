from __future__ import annotations

import time
from typing import Any

import pytest
from dllm_operator.render.integrations import SERIES
from dllm_server.models.tokenizer import load_tokenizer
from dllm_server.telemetry.metrics import Metrics
from prometheus_client.parser import text_string_to_metric_families
from scripted_engine import FIXTURE, make_snapshot
from scripted_server import ScriptedServer

ENGINE_SAMPLES = {
    "dllm_requests_running": 1,
    "dllm_requests_waiting": 2,
    'dllm_tokens_total{phase="reuse"}': 20,
    'dllm_steps_total{phase="mixed"}': 3,
    "dllm_committed_tokens_total": 5,
    "dllm_requests_not_finite_total": 5,
    "dllm_model_sound": 1,
    "dllm_batch_fill_ratio": 0.5,
    "dllm_token_budget": 4096,
    'dllm_kv_pages{state="used"}': 25,
    'dllm_memory_bytes{owner="weights"}': 100,
    'dllm_memory_peak_bytes{owner="weights"}': 100,
    'dllm_memory_predicted_bytes{owner="weights"}': 90,
    "dllm_device_memory_bytes": 1000,
    "dllm_prefix_cache_queried_tokens_total": 200,
    "dllm_prefix_cache_hit_tokens_total": 120,
    "dllm_prefix_cache_saved_tokens_total": 150,
    "dllm_prefix_cache_evicted_tokens_total": 40,
    "dllm_prefix_cache_pages": 10,
    "dllm_preemptions_total": 6,
    'dllm_oom_total{phase="reuse"}': 1,
    "dllm_tuning_generation": 7,
    "dllm_tuning_errors_total": 1,
    "dllm_tuning_refused": 1,
    'dllm_live_setting{setting="refresh_share"}': 0.5,
    'dllm_live_setting_floor{setting="max_num_batched_tokens"}': 99,
    'dllm_live_setting_ceiling{setting="max_num_batched_tokens"}': 8192,
    'dllm_step_fit_steps_total{phase="refresh"}': 2,
    'dllm_step_fit_tokens_total{phase="refresh"}': 30,
    'dllm_step_fit_seconds_total{phase="refresh"}': 0.3,
    'dllm_step_fit_token_seconds_total{phase="refresh"}': 5,
    'dllm_step_fit_squared_tokens_total{phase="refresh"}': 500,
    'dllm_step_fit_left_out_total{reason="outlier"}': 1,
    'dllm_memory_window_peak_bytes{owner="activations",window="4"}': 304,
    'dllm_window_start_seconds{window="3"}': 1030,
    'dllm_window_end_seconds{window="3"}': 1040,
    'dllm_window_generation{window="3"}': 7,
    'dllm_window_peak_step_tokens{window="3"}': 40,
    'dllm_window_peak_step_logits_rows{window="3"}': 8,
    'dllm_window_steps{window="3"}': 2,
    'dllm_window_tokens{window="3"}': 60,
    'dllm_window_committed_tokens{window="3"}': 12,
    'dllm_window_oom{window="3"}': 1,
    'dllm_window_most_waiting{window="3"}': 5,
    'dllm_window_most_running{window="3"}': 3,
    'dllm_window_least_free_pages{window="3"}': 70,
    'dllm_window_least_step_tokens{window="3"}': 99,
    'dllm_window_step_requests{window="3"}': 6,
    'dllm_window_tight_steps{window="3"}': 1,
    'dllm_window_mean_batch_fill{window="3"}': 0.25,
    'dllm_step_seconds_count{phase="mixed"}': 2,
    'dllm_step_seconds_bucket{le="+Inf",phase="mixed"}': 2,
    'vllm:num_requests_running{model_name="tiny"}': 1,
    'vllm:num_requests_waiting{model_name="tiny"}': 2,
    'vllm:kv_cache_usage_perc{model_name="tiny"}': 0.25,
    'vllm:gpu_cache_usage_perc{model_name="tiny"}': 0.25,
    'vllm:prefix_cache_queries_total{model_name="tiny"}': 200,
    'vllm:prefix_cache_hits_total{model_name="tiny"}': 120,
    'vllm:prompt_tokens_cached_total{model_name="tiny"}': 120,
    'vllm:num_preemptions_total{model_name="tiny"}': 6,
    'vllm:cache_config_info{block_size="16",model_name="tiny",num_gpu_blocks="100"}': 1,
}


def samples(text: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.mark.parametrize("sample", ENGINE_SAMPLES)
def test_the_engines_snapshot_is_shown(sample: str) -> None:
    content = Metrics(make_snapshot, "tiny").render()

    assert samples(content.decode())[sample] == ENGINE_SAMPLES[sample]


@pytest.mark.parametrize("metric", SERIES)
def test_what_an_autoscaler_asks_for_is_shown(metric: str) -> None:
    """The operator's queries name series; a colon or a word less, and nothing ever scales."""
    content = Metrics(make_snapshot, "tiny").render()

    assert f'{SERIES[metric]}{{model_name="tiny"}}' in samples(content.decode())


def test_before_the_first_snapshot_there_are_only_the_apis_own() -> None:
    content = Metrics(lambda: None, "tiny").render()

    assert "dllm_requests_running" not in samples(content.decode())
    assert samples(content.decode())['dllm_requests_total{status="success"}'] == 0


def test_requests_are_counted_and_timed() -> None:
    with ScriptedServer() as server:
        server.http.post("/v1/completions", json={"prompt": [1, 2, 3], "max_tokens": 5, "n": 2})
        server.http.post("/v1/completions", json={"prompt": []})
        found = samples(server.http.get("/metrics").text)

    for sample, value in {
        'dllm_requests_total{status="success"}': 1,
        'dllm_requests_total{status="invalid"}': 1,
        "dllm_queue_seconds_count": 2,
        "dllm_first_block_seconds_count": 2,
        "dllm_e2e_seconds_count": 2,
        'vllm:time_to_first_token_seconds_count{model_name="tiny"}': 2,
        'vllm:e2e_request_latency_seconds_count{model_name="tiny"}': 2,
        'vllm:prompt_tokens_total{model_name="tiny"}': 6,
        'vllm:generation_tokens_total{model_name="tiny"}': 10,
        'vllm:request_success_total{finished_reason="length",model_name="tiny"}': 2,
    }.items():
        assert found[sample] == value, sample


def test_a_requests_times_begin_before_its_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(FIXTURE)
    encode = tokenizer.encode

    def encode_slowly(*given: Any, **options: Any) -> list[int]:
        time.sleep(0.2)
        return encode(*given, **options)

    monkeypatch.setattr(tokenizer, "encode", encode_slowly)
    with ScriptedServer(tokenizer=tokenizer) as server:
        server.http.post("/v1/completions", json={"prompt": "t1 t2", "max_tokens": 5})
        found = samples(server.http.get("/metrics").text)

    assert found["dllm_first_block_seconds_sum"] > 0.2
    assert found["dllm_e2e_seconds_sum"] > 0.2
