"""Steps of every kind before the first request, so that nothing is compiled or first allocated later."""

from __future__ import annotations

from dllm_server.engine.device.kv_pool import KvPool
from dllm_server.engine.device.made_up import MadeUp, pages_of
from dllm_server.engine.requests.messages import Sampling
from dllm_server.memory import EngineLimits
from dllm_server.models.transformer import Transformer

_SMALLEST_TOKENS = 32


def rehearse(model: Transformer, pool: KvPool, limits: EngineLimits) -> None:
    """Long and short steps at each power of two of the length, then of the number of requests; greedy and
    sampled, keeping all and a part. The pool must be nobody's yet."""
    lengths = {limits.max_model_len}
    while min(lengths) // 2 >= _SMALLEST_TOKENS:
        lengths.add(min(lengths) // 2)
    counts = [1 << power for power in range(limits.max_num_seqs.bit_length())]
    for length in sorted(lengths):
        for ratio in {1.0, min(0.5, limits.retention_ratio)}:
            _run(model, pool, limits, 1, length, ratio, temperature=0.0)
    for count in counts:
        for temperature in (0.0, 1.0):
            _run(model, pool, limits, count, min(lengths), limits.retention_ratio, temperature=temperature)


def _run(
    model: Transformer,
    pool: KvPool,
    limits: EngineLimits,
    count: int,
    length: int,
    ratio: float,
    *,
    temperature: float,
) -> None:
    """``count`` requests of ``length`` tokens: a long step of as many as it holds, a short one of all."""
    if pages_of(limits, length, ratio, model.config.shift) > pool.store.pages:
        return
    requests = MadeUp.of(model, limits, count, length, ratio, Sampling(temperature=temperature))
    runner = requests.runner(model, pool)
    runner.launch(requests.long_step(limits.max_num_batched_tokens), limits.max_num_logits).result()
    if requests.block > 1:
        runner.launch(requests.short_step(), limits.max_num_logits).result()
