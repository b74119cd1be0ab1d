"""The engine on a CUDA device: the fixture's tokens in float32, and LLaDA-8B's shapes in bfloat16 inside a
memory limit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from dllm_server.engine.messages import FinishReason
from dllm_server.memory import GIB
from engines import FIXTURE, make_request, run_all, start_engine_in_process
from test_fixture import CASES, make_case

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]

LLADA_8B = {
    "architectures": ["LLaDAModelLM"],
    "d_model": 4096,
    "n_heads": 32,
    "n_kv_heads": 32,
    "n_layers": 32,
    "mlp_hidden_size": 12288,
    "vocab_size": 126464,
    "max_sequence_length": 4096,
    "rope_theta": 500000.0,
    "mask_token_id": 126336,
    "eos_token_id": 126081,
}


def make_directory(tmp_path: Path, config: dict[str, Any]) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_the_fixtures_tokens_come_out_on_cuda_in_float32() -> None:
    engine = start_engine_in_process(FIXTURE, device="cuda", max_num_seqs=32, kv_pool_bytes=None).engine

    outcomes = run_all(engine, [make_case(number) for number in range(len(CASES))])

    assert [outcomes[str(index)].tokens for index in range(len(CASES))] == [
        case["expected"] for case in CASES
    ]
    assert engine.runner.pool.allocator.used_pages == 0


def test_an_8b_model_serves_within_a_24_gib_limit(tmp_path: Path) -> None:
    directory = make_directory(tmp_path, LLADA_8B)
    started = start_engine_in_process(
        directory,
        device="cuda",
        dtype="bfloat16",
        load_format="dummy",
        gpu_memory_limit="24GiB",
        max_num_logits=512,
        max_model_len=1024,
        max_num_batched_tokens=2048,
        max_num_seqs=32,
        block_length=32,
        page_size=16,
        kv_pool_bytes=None,
        retention_ratio=0.5,
    )
    requests = [
        make_request(
            str(i), prompt=range(100, 400), max_tokens=64, block_length=32, value=4, retention_ratio=0.5
        )
        for i in range(32)
    ]
    torch.cuda.reset_peak_memory_stats()

    outcomes = run_all(started.engine, requests)

    assert {outcome.end.reason for outcome in outcomes.values()} == {FinishReason.LENGTH}
    assert sum(started.engine.stats.oom.values()) == 0
    assert torch.cuda.max_memory_reserved() <= 24 * GIB
    started.ledger.close_window()
    print("budget MiB", {owner: size >> 20 for owner, size in started.budget.owners().items()})
    print("predicted MiB", {owner: size >> 20 for owner, size in started.predicted.owners().items()})
    print("seen MiB", {owner: size >> 20 for owner, size in started.ledger.peak_owners().items()})
    print("steps", started.engine.stats.steps, "seconds", round(started.engine.stats.seconds, 2))
