"""The baselines decode what the engine decodes when it keeps all K/V: the difference is time alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from dllm_server.engine.process.offline import complete
from dllm_server.engine.process.startup import start
from dllm_server.settings import EngineSettings

from benchmarks.baselines import decode_static_batch, decode_without_cache
from benchmarks.gpu.arrivals import random_job

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "llada_mha"
EMBEDDED = "embedded"
LENGTHS = (11, 30, 47)


@pytest.mark.parametrize("model", [str(FIXTURE), EMBEDDED])
@pytest.mark.parametrize("quota", [1, 3])
def test_a_static_batch_decodes_the_engines_greedy_tokens(model: str, quota: int) -> None:
    settings = {"device": "cpu", "dtype": "float32", "max_num_batched_tokens": 512, "kv_pool_bytes": "64MiB"}
    engine = start(EngineSettings.model_validate({**settings, "model": model, "block_length": 8})).engine
    rng = random.Random(quota)
    jobs = [random_job(length, 24, 400, rng) for length in LENGTHS]
    requests = [job.request(str(i), quota, block=8) for i, job in enumerate(jobs)]

    expected = [completion.token_ids for completion in complete(engine, requests)]

    assert decode_static_batch(engine.runner.model, jobs, quota, block=8) == expected


def test_fewer_blocks_of_a_static_batch_are_the_first_ones() -> None:
    settings = {"device": "cpu", "dtype": "float32", "max_num_batched_tokens": 512, "kv_pool_bytes": "64MiB"}
    model = start(EngineSettings.model_validate({**settings, "model": str(FIXTURE)})).engine.runner.model
    jobs = [random_job(20, 24, 400, random.Random(5))]

    whole = decode_static_batch(model, jobs, 2, block=8)
    part = decode_static_batch(model, jobs, 2, block=8, blocks=1)

    assert part[0][:8] == whole[0][:8]
    assert set(part[0][8:]) == {model.config.mask_token_id}


def test_without_a_cache_the_first_block_is_that_of_the_dual_cache_at_one_step_a_block() -> None:
    settings = {"device": "cpu", "dtype": "float32", "max_num_batched_tokens": 512, "kv_pool_bytes": "64MiB"}
    model = start(EngineSettings.model_validate({**settings, "model": str(FIXTURE)})).engine.runner.model
    job = random_job(20, 24, 400, random.Random(6))

    assert [decode_without_cache(model, job, 8, block=8)] == decode_static_batch(model, [job], 8, block=8)
