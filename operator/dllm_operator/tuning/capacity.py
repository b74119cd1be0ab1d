"""What a setting would do on this GPU type for this load, and the best one: the model behind the
controller.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dllm_operator.tuning.setting import Bounds, Setting
from dllm_operator.tuning.speed import Speed

GRID_RATIO = 1.1  # between neighbouring token budgets that are looked at
SPARE = 1.25  # sequences over those that bring a budget's tokens on average
FEW_ROWS = 512  # of logits at once: enough for the projection to run at its full rate
ENOUGH = 0.99  # of the best throughput: a larger budget for the rest only costs memory and tail latency


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes by owner on one GPU type: a property of GPU, model, dtype and engine."""

    device_bytes: int
    weights_bytes: int
    other_bytes: int
    bytes_per_token: float  # activations of a step
    bytes_per_row: float  # logits
    page_bytes: int

    def peak_bytes(self, setting: Setting) -> float:
        return self.fixed_bytes(setting) + self.bytes_per_token * setting.max_num_batched_tokens

    def fixed_bytes(self, setting: Setting) -> float:
        """All but activations."""
        held = self.weights_bytes + self.other_bytes + setting.kv_pool_bytes
        return held + self.bytes_per_row * setting.max_num_logits

    def most_tokens(self, setting: Setting, target: float) -> int:
        """The largest token budget that keeps the peak below ``target`` of the device."""
        free = target * self.device_bytes - self.fixed_bytes(setting)
        return max(int(free / self.bytes_per_token), 0) if self.bytes_per_token > 0 else 0


@dataclass(frozen=True, slots=True)
class Load:
    """What a running request needs, averaged over its life."""

    tokens_per_step: float  # query tokens a request brings to a step
    pages: float
    rows: float  # of logits at once
    running: float  # requests that ran at once
    usable: float  # of the token budget, that steps fill when it limits them
    is_starved: bool  # more would run if they could


def step_tokens(setting: Setting, use: MemoryUse, load: Load) -> float:
    """Tokens of a steady step: what the requests that fit bring, as far as the budget lets them. It never
    does to its last token: refreshes are whole, and have their share of it."""
    pages = max(setting.kv_pool_bytes // use.page_bytes - 1, 0)
    fitting = min(setting.max_num_seqs, pages / load.pages if load.pages > 0 else setting.max_num_seqs)
    running = fitting if load.is_starved else min(fitting, load.running)
    return min(load.usable * setting.max_num_batched_tokens, running * load.tokens_per_step)


def throughput(setting: Setting, use: MemoryUse, speed: Speed, load: Load) -> float:
    """Query tokens a second and pod."""
    return speed.throughput(step_tokens(setting, use, load))


def best_live(
    setting: Setting, use: MemoryUse, speed: Speed, load: Load, bounds: Bounds, target: float
) -> Setting:
    """The smallest token budget with all but the whole throughput that memory allows, the split as it is."""
    most = min(use.most_tokens(setting, target), bounds.tokens.high)
    candidates = [
        replace(setting, max_num_batched_tokens=int(tokens)) for tokens in _grid(bounds.tokens.low, most)
    ]
    return _smallest_good(
        candidates or [bounds.clamp(replace(setting, max_num_batched_tokens=0))], use, speed, load
    )


def best_split(
    setting: Setting, use: MemoryUse, speed: Speed, load: Load, bounds: Bounds, target: float
) -> Setting:
    """Token budget, pages and sequences chosen together; what the activations leave goes to pages. Logits
    get the rows of all that runs at once, or fewer where their bytes make that much of a difference."""

    def best(rows: int) -> Setting:
        start = replace(setting, max_num_logits=rows)
        candidates = [
            candidate
            for tokens in _grid(bounds.tokens.low, bounds.tokens.high)
            if (candidate := _divided(start, int(tokens), use, load, bounds, target)) is not None
        ]
        return _smallest_good(candidates or [setting], use, speed, load)

    whole = best(setting.max_num_logits)
    few = best(min(int(bounds.logits.clamp(FEW_ROWS)), setting.max_num_logits))
    gains = throughput(few, use, speed, load) * ENOUGH > throughput(whole, use, speed, load)
    return few if gains else whole


def _divided(
    setting: Setting, tokens: int, use: MemoryUse, load: Load, bounds: Bounds, target: float
) -> Setting | None:
    """Beside the activations of so many tokens, pages for the sequences that bring as many, and SPARE for
    what the load's mean hides; more would only slow each other. As many as fit, where that is fewer; None
    where none do."""

    def holding(seqs: int) -> Setting:
        rows = int(bounds.logits.clamp(seqs * load.rows)) if load.rows > 0 else setting.max_num_logits
        return replace(
            setting,
            max_num_batched_tokens=tokens,
            max_num_seqs=seqs,
            max_num_logits=min(rows, setting.max_num_logits),
            kv_pool_bytes=(math.ceil(seqs * load.pages) + 1) * use.page_bytes,
        )

    low, high = max(int(bounds.seqs.low), 1), int(bounds.seqs.high)
    if load.tokens_per_step > 0:
        useful = math.ceil(SPARE * load.usable * tokens / load.tokens_per_step)
        high = min(max(useful, low), high)
    most = target * use.device_bytes
    fitting = bisect_left(range(low, high + 1), True, key=lambda seqs: use.peak_bytes(holding(seqs)) > most)
    return holding(low + fitting - 1) if fitting else None


def _smallest_good(candidates: list[Setting], use: MemoryUse, speed: Speed, load: Load) -> Setting:
    """Of those with all but the best throughput the one with the least tokens, since they cost tail
    latency."""
    rated = [(throughput(candidate, use, speed, load), candidate) for candidate in candidates]
    best = max(rate for rate, _ in rated)
    good = (candidate for rate, candidate in rated if rate >= ENOUGH * best)
    return min(good, key=lambda candidate: candidate.max_num_batched_tokens)


def _grid(low: float, high: float) -> Iterator[float]:
    """From low to high in steps of GRID_RATIO, high included; nothing where high is below low."""
    tokens = max(low, 1.0)
    while tokens < high:
        yield tokens
        tokens *= GRID_RATIO
    if high >= low:
        yield high
