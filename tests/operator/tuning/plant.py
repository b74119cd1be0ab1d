"""A GPU pod as the controller sees it: memory and speed of a GPU type, a load, noise, leaks, a queue.

A fluid model: within a window of small time slices, requests queue, as many run as pages and sequences
allow, and a step takes a floor plus its tokens over a rate. Sources of the figures: the public spec sheets
of the GPUs and an H100.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace

from dllm_operator.tuning.setting import Bounds, Range, Setting
from dllm_operator.tuning.speed import StepSums
from dllm_operator.tuning.window import PoolWindow

GIB = 1024**3
MIB = 1024**2
WINDOW_SECONDS = 60.0
SLICES = 60
STEPS_A_SLICE = 8


@dataclass(frozen=True)
class Gpu:
    """LLaDA-8B in bfloat16 on it: seconds of a step without tokens, tokens a second beyond."""

    name: str
    gib: float
    floor_seconds: float
    tokens_per_second: float


GPUS = (
    Gpu("H100-80", 79.6, 0.0056, 49_000),
    Gpu("A100-40", 39.6, 0.011, 17_000),
    Gpu("L40S-48", 45.0, 0.019, 18_000),
    Gpu("A10G-24", 22.5, 0.028, 6_000),
    Gpu("RTX4090-24", 24.0, 0.017, 9_000),
    Gpu("L4-24", 22.5, 0.055, 5_500),
)


@dataclass(frozen=True)
class Traffic:
    """Requests a second of a pod, how bursty, and what a request takes: steps, query tokens and rows of
    logits a step, K/V slots.
    """

    per_second: float
    burst: float = 1.0  # gamma shape of arrivals: 1 is Poisson, 0.25 bursty
    steps: float = 64.0
    tokens_per_step: float = 56.0
    rows_per_step: float = 32.0
    longest_tokens: int = 1024
    kept_tokens: float = 330.0


@dataclass
class Plant:
    """One pod; ``run`` a window under a setting."""

    gpu: Gpu
    traffic: Traffic
    seed: int = 0
    bytes_per_token: float = 0.4 * MIB
    bytes_per_row: float = 3 * 4 * 126_464.0
    weights_bytes: int = 15 * GIB
    other_bytes: float = 1.2 * GIB
    leak_bytes_per_window: float = 0.0
    time_noise: float = 0.03
    peak_noise: float = 0.01
    usable: float = 0.7  # of the token budget, with half of it for refreshes; an H100's under load
    page_slots: int = 16
    slot_bytes: int = 512 * 1024
    queue: float = 0.0
    running: float = 0.0
    windows: int = 0
    out_of_memory: int = 0
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    @property
    def page_bytes(self) -> int:
        return self.page_slots * self.slot_bytes

    @property
    def device_bytes(self) -> int:
        return int(self.gpu.gib * GIB)

    @property
    def pages_per_request(self) -> float:
        return -(-self.traffic.kept_tokens // self.page_slots)

    def start_setting(
        self, tokens: int, seqs: int = 64, logits: int = 2048, believed_bytes_per_token: float | None = None
    ) -> Setting:
        """As the engine divides the device at start: activations and logits first, pages get the rest. A
        wrong belief makes the division unsafe."""
        room = 0.9 * self.device_bytes - self.weights_bytes - 1.0 * GIB
        per_token = believed_bytes_per_token or self.bytes_per_token
        room -= per_token * tokens + self.bytes_per_row * logits
        pool = max(int(room // self.page_bytes), 2 * int(self.pages_per_request) + 2)
        most = int(seqs * self.pages_per_request * 4) + 1
        return Setting(tokens, seqs, logits, 0.5, min(pool, most) * self.page_bytes)

    def bounds(self, highest: int = 32_768) -> Bounds:
        low = self.traffic.longest_tokens
        return Bounds(Range(low, highest), Range(1, 512), Range(64, 8192), Range(0.1, 1.0))

    def run(self, setting: Setting, *, is_applied: bool = True) -> PoolWindow:
        """A window of one minute."""
        self.windows += 1
        self.other_bytes += self.leak_bytes_per_window
        pages = setting.kv_pool_bytes // self.page_bytes - 1
        slots = min(float(setting.max_num_seqs), pages / self.pages_per_request)
        seconds = WINDOW_SECONDS / SLICES
        sums, tight, waiting, running, work = StepSums(), 0.0, 0.0, 0.0, 0.0
        most_tokens = 0.0
        for _ in range(SLICES):
            self.queue += self._arrivals(seconds)
            self.running = min(slots, self.queue)
            asked = self.running * self.traffic.tokens_per_step
            budget = self.usable * setting.max_num_batched_tokens
            tokens = min(asked, budget)
            if tokens > 0:
                sums += self._steps(tokens)
                rate = tokens / self._step_seconds(tokens)
                done = min(rate * seconds / (self.traffic.steps * self.traffic.tokens_per_step), self.queue)
                self.queue -= done
                work += done
            burst = min(self.running * self.traffic.longest_tokens, float(setting.max_num_batched_tokens))
            most_tokens = max(most_tokens, burst)
            tight += self._tight_share(asked, budget) / SLICES
            waiting += max(self.queue - self.running, 0.0) / SLICES
            running += self.running / SLICES
        return self._window(setting, sums, tight, waiting, running, work, most_tokens, pages, is_applied)

    def _tight_share(self, asked: float, budget: float) -> float:
        """Of the steps: refreshes are whole, so that some stay out before the budget is used up."""
        return min(max(0.5 + (asked - budget) / self.traffic.longest_tokens, 0.0), 1.0) if asked else 0.0

    def _arrivals(self, seconds: float) -> float:
        mean = self.traffic.per_second * seconds
        shape = self.traffic.burst * max(mean, 1e-9)
        return self.rng.gammavariate(shape, 1 / self.traffic.burst) if mean > 0 else 0.0

    def _step_seconds(self, tokens: float) -> float:
        return self.gpu.floor_seconds + tokens / self.gpu.tokens_per_second

    def _steps(self, tokens: float) -> StepSums:
        sums = StepSums()
        for _ in range(STEPS_A_SLICE):
            size = max(tokens * self.rng.uniform(0.7, 1.0), 1.0)  # blocks end at different steps
            seconds = self._step_seconds(size) * self.rng.gauss(1.0, self.time_noise)
            sums += StepSums(1, size, seconds, size * seconds, size * size)
        return sums

    def _window(
        self,
        setting: Setting,
        sums: StepSums,
        tight: float,
        waiting: float,
        running: float,
        work: float,
        most_tokens: float,
        pages: int,
        is_applied: bool,
    ) -> PoolWindow:
        activations = self.bytes_per_token * most_tokens * self.rng.gauss(1.0, self.peak_noise)
        rows = min(running * self.traffic.rows_per_step, setting.max_num_logits)
        logits = self.bytes_per_row * rows
        held = self.weights_bytes + setting.kv_pool_bytes + self.other_bytes
        peak = held + activations + logits
        failures = int(peak > self.device_bytes)
        self.out_of_memory += failures
        return PoolWindow(
            seconds=WINDOW_SECONDS,
            pods=1,
            pods_silent=0,
            is_applied=is_applied,
            device_bytes=self.device_bytes,
            weights_bytes=self.weights_bytes,
            kv_pool_bytes=setting.kv_pool_bytes,
            other_bytes=int(self.other_bytes),
            peak_bytes=int(min(peak, self.device_bytes)),
            peak_activation_bytes=int(min(activations, self.device_bytes - held - logits)),
            peak_tokens=int(most_tokens),
            peak_logits_bytes=int(logits),
            peak_rows=int(rows),
            least_step_tokens=self.traffic.longest_tokens,
            out_of_memory=failures,
            steps=sums,
            committed_per_second=work / WINDOW_SECONDS,
            tokens_per_request=self.traffic.tokens_per_step if sums.steps else 0.0,
            tight=tight,
            waiting=waiting,
            running=running,
            used_pages=running * self.pages_per_request,
            total_pages=pages,
        )


@dataclass
class ExactPlant(Plant):
    """A block-causal model, with experts or without: a prompt is computed once, in pieces of any size, then
    each step brings a block. So no budget is too small for a sequence.
    """

    experts_seconds: float = 0.0  # to read the weights of all routed experts
    expert_share: float = 0.0  # of them, that one token takes

    def _step_seconds(self, tokens: float) -> float:
        touched = 1.0 - (1.0 - self.expert_share) ** tokens
        return super()._step_seconds(tokens) + self.experts_seconds * touched

    def _tight_share(self, asked: float, budget: float) -> float:
        """Pieces fill a step to its last token."""
        return min(max(asked / budget - 1.0, 0.0), 1.0) if asked else 0.0


def sdar_8b(gpu: Gpu) -> ExactPlant:
    """Twice what the GPU could do: prompts of 300 tokens, 256 more in blocks of 4, two
    tokens a step."""
    plain = Traffic(
        0.0, steps=128.0, tokens_per_step=6.0, rows_per_step=4.0, longest_tokens=8, kept_tokens=430
    )
    return ExactPlant(
        gpu,
        twice(plain, gpu),
        weights_bytes=int(15.3 * GIB),
        slot_bytes=144 * 1024,
        bytes_per_token=0.3 * MIB,
        bytes_per_row=3 * 4 * 151_936.0,
        usable=0.95,
    )


def llada2_mini(gpu: Gpu) -> ExactPlant:
    """The same in blocks of 32, four tokens a step; a step reads the experts that its tokens take."""
    faster = replace(gpu, floor_seconds=0.45 * gpu.floor_seconds, tokens_per_second=4 * gpu.tokens_per_second)
    plain = Traffic(
        0.0, steps=64.0, tokens_per_step=38.0, rows_per_step=32.0, longest_tokens=64, kept_tokens=430
    )
    return ExactPlant(
        faster,
        twice(plain, faster),
        weights_bytes=int(30.3 * GIB),
        slot_bytes=40 * 1024,
        bytes_per_token=0.3 * MIB,
        bytes_per_row=3 * 4 * 157_184.0,
        usable=0.95,
        experts_seconds=1.5 * gpu.floor_seconds,
        expert_share=8 / 256,
    )


def twice(traffic: Traffic, gpu: Gpu) -> Traffic:
    """At twice the rate that the GPU could ever serve."""
    return replace(traffic, per_second=2 * gpu.tokens_per_second / (traffic.steps * traffic.tokens_per_step))


def best_fixed(plant: Plant, target: float) -> tuple[Setting, float]:
    """The setting of a sweep, and its completed requests a second, that keeps below ``target``."""
    best: tuple[Setting, float] | None = None
    for tokens in (512, 1024, 2048, 3072, 4096, 6144, 8192, 12_288, 16_384, 24_576, 32_768):
        for seqs, logits in itertools.product((16, 32, 64, 128, 256), (512, 2048)):
            setting = divide(plant, tokens, seqs, logits, target)
            if setting is None or tokens < plant.traffic.longest_tokens:
                continue
            trial = replace(plant, seed=plant.seed + 1, queue=0.0, running=0.0)
            rate = sum(trial.run(setting).committed_per_second for _ in range(4)) / 4
            if trial.out_of_memory == 0 and (best is None or rate > best[1]):
                best = (setting, rate)
    assert best is not None
    return best


def divide(plant: Plant, tokens: int, seqs: int, logits: int, target: float) -> Setting | None:
    """Pages get what a token budget leaves below ``target``; None where they get too little."""
    room = target * plant.device_bytes - plant.weights_bytes - plant.other_bytes
    room -= plant.bytes_per_token * tokens + plant.bytes_per_row * logits
    pages = min(int(room // plant.page_bytes), int(seqs * plant.pages_per_request) + 1)
    if pages < plant.pages_per_request + 1:
        return None
    return Setting(tokens, seqs, logits, 0.5, pages * plant.page_bytes)
