"""The engine on a CUDA device: the fixtures' tokens in float32, LLaDA-8B's shapes in bfloat16 inside a memory
limit, and the host memory that loading takes."""

import json
import tempfile
import threading
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from dllm_server.engine.requests.messages import FinishReason
from dllm_server.memory import GIB
from dllm_server.models.loader import load_model
from dllm_server.models.registry import find_family, open_checkpoint
from dllm_server.models.transformer import Transformer
from engines import FIXTURES, make_request, run_all, start_engine_in_process
from exact_cases import BLOCK_CAUSAL
from exact_cases import cases_of as exact_cases_of
from safetensors.torch import save_file
from test_exact_engine import request_of
from test_fixture import BIDIRECTIONAL, cases_of, make_case

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


def write_random_shards(directory: Path, values: dict[str, Any]) -> int:
    """config.json and bfloat16 shards of two layers or one other weight; returns the largest one's bytes."""
    make_directory(directory, values)
    family, config = find_family(values)
    shapes = Transformer(config, torch.device("meta"), torch.bfloat16)
    shards: dict[str, list[str]] = defaultdict(list)
    targets = family.weight_targets(config)
    for name, target in targets.items():
        part = target.parameter if target.layer < 0 else f"layers-{target.layer // 2}"
        shards[f"model-{part}.safetensors"].append(name)
    for file, names in shards.items():
        weights = {
            name: torch.randn(shapes.slice_of(targets[name]).shape, device="cuda", dtype=torch.bfloat16).cpu()
            for name in names
        }
        save_file(weights, directory / file)
    weight_map = {name: file for file, names in shards.items() for name in names}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return max((directory / file).stat().st_size for file in shards)


def process_bytes(field: str) -> int:
    """A memory field of this process in /proc."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


@dataclass(frozen=True)
class HostPeak:
    """Bytes above the level before loading: all resident pages, mapped shards included; without files."""

    resident: int
    anonymous: int  # sampled


def load_in_this_process(directory: Path) -> HostPeak:
    """Load ``directory`` onto the GPU; only a process that has not loaded before sees its own peak."""
    torch.zeros(1, device="cuda").add_(1).item()
    resident, anonymous = process_bytes("VmRSS"), process_bytes("RssAnon")
    samples, is_loaded = [anonymous], threading.Event()

    def sample() -> None:
        while not is_loaded.wait(0.005):
            samples.append(process_bytes("RssAnon"))

    sampler = threading.Thread(target=sample)
    sampler.start()
    load_model(open_checkpoint(directory), torch.device("cuda"), torch.bfloat16)
    torch.cuda.synchronize()
    is_loaded.set()
    sampler.join()
    return HostPeak(process_bytes("VmHWM") - resident, max(samples) - anonymous)


@pytest.mark.parametrize("fixture", [*BIDIRECTIONAL, *BLOCK_CAUSAL])
def test_the_fixtures_tokens_come_out_on_cuda_in_float32(fixture: str) -> None:
    sizes: dict[str, Any] = {"max_num_seqs": 32, "max_num_batched_tokens": 1024, "kv_pool_bytes": None}
    engine = start_engine_in_process(FIXTURES / fixture, device="cuda", **sizes).engine
    if fixture in BIDIRECTIONAL:
        cases = [(make_case(fixture, number), case) for number, case in enumerate(cases_of(fixture))]
    else:
        cases = [
            (request_of(fixture, case, f"{number}-{turn}"), case)
            for number, case in enumerate(exact_cases_of(fixture))
            for turn in ("first", "again")
        ]

    outcomes = run_all(engine, [request for request, _ in cases])

    for request, case in cases:
        assert outcomes[request.request_id].tokens == case["expected"]
    assert engine.course.store.used_pages == 0


def test_an_8b_model_serves_within_a_24_gib_limit(tmp_path: Path) -> None:
    directory = make_directory(tmp_path, LLADA_8B)
    started = start_engine_in_process(
        directory,
        device="cuda",
        dtype="bfloat16",
        load_format="dummy",
        gpu_memory_limit="24GiB",
        max_num_logits=2048,
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
    assert started.ledger.held()["other"] <= GIB // 2  # tables, CUDA graphs, and a workspace a stream
    started.ledger.read_step(started.engine.live.max_num_batched_tokens)
    print("budget MiB", {owner: size >> 20 for owner, size in started.budget.owners().items()})
    print("predicted MiB", {owner: size >> 20 for owner, size in started.predicted.owners().items()})
    print("seen MiB", {owner: size >> 20 for owner, size in started.ledger.peak_owners().items()})
    print("steps", started.engine.stats.steps, "seconds", round(started.engine.stats.seconds, 2))


def test_loading_takes_no_more_host_memory_than_the_largest_shard_and_a_gib() -> None:
    with tempfile.TemporaryDirectory() as folder:
        largest_shard_bytes = write_random_shards(Path(folder), {**LLADA_8B, "n_layers": 16})
        shards_bytes = [path.stat().st_size for path in Path(folder).glob("*.safetensors")]
        torch.cuda.empty_cache()

        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh_process:
            peak = fresh_process.submit(load_in_this_process, Path(folder)).result()

    print("shards", len(shards_bytes), "MiB", sum(shards_bytes) >> 20, "largest", largest_shard_bytes >> 20)
    print("peak MiB above the level before", peak.resident >> 20, "of them anonymous", peak.anonymous >> 20)
    assert peak.resident <= largest_shard_bytes + GIB
