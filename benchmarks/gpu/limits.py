"""What bounds everything else on this machine, measured now: matrix products and the copy bandwidth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from dllm_kernels.gpu.timing import median_seconds
from dllm_server.models.transformer import Transformer

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult

COPY_BYTES = 2 * 1024**3
KNEE_TOKENS = (2048, 4096)  # the best token rate lies here


def run(bench: Bench, result: PartResult) -> None:
    """All linear layers of one forward, the LM head's product, a large copy."""
    model = bench.weights()
    bandwidth = copy_bandwidth(model.device, COPY_BYTES if bench.is_cuda else 1024**2)
    gemms = gemm_rates(model, bench.scale.gemm_tokens)
    heads = {tokens: head_seconds(model, tokens) for tokens in bench.scale.gemm_tokens}
    result.data = {
        "gemm_tokens_per_second": gemms,
        "head_seconds": heads,
        "copy_bytes_per_second": bandwidth,
    }
    result.add("copy bandwidth, read and written", bandwidth / 1e9, "GB/s")
    for tokens, rate in gemms.items():
        result.add(f"all linear layers, {tokens} tokens", tokens / rate * 1e3, "ms")
    result.add("best rate of the linear layers", max(gemms.values()), "token-forwards/s")
    for tokens, seconds in heads.items():
        result.add(f"LM head alone, {tokens} rows", seconds * 1e3, "ms")


def gemm_rates(model: Transformer, sizes: Sequence[int]) -> dict[int, float]:
    """Tokens a second through all linear layers of a forward, the LM head left out, by tokens a forward."""
    return {tokens: tokens / linear_seconds(model, tokens) for tokens in sizes}


def best_rate(bench: Bench) -> float:
    """Token-forwards a second at the knee; the limit of every step of many tokens."""
    sizes = KNEE_TOKENS if bench.is_cuda else bench.scale.gemm_tokens
    return max(gemm_rates(bench.weights(), sizes).values())


@torch.inference_mode()
def linear_seconds(model: Transformer, tokens: int) -> float:
    weights = model.weights
    by_layer = [weights[name] for name in ("qkv", "attention_out", "gate_up", "down")]
    inputs = [
        torch.randn(tokens, weight.shape[2], device=model.device, dtype=model.dtype) for weight in by_layer
    ]

    def run_layers() -> None:
        for layer in range(model.config.n_layers):
            for x, weight in zip(inputs, by_layer, strict=True):
                F.linear(x, weight[layer])

    return median_seconds(run_layers, model.device, repeats=10)


@torch.inference_mode()
def head_seconds(model: Transformer, rows: int) -> float:
    hidden = torch.randn(rows, model.config.d_model, device=model.device, dtype=model.dtype)
    return median_seconds(lambda: F.linear(hidden, model.lm_head), model.device)


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second of a copy of ``size`` bytes, read and written."""
    source = torch.ones(size, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    return 2 * size / median_seconds(lambda: target.copy_(source), device)
