"""An engine client that follows a script: for what a healthy engine never does (die, hang, fail)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from enum import Enum, auto
from pathlib import Path

from dllm_server.engine.process.client import EngineDeadError, RequestEvent
from dllm_server.engine.requests.messages import (
    BlockCommitted,
    CanvasUpdate,
    EngineSnapshot,
    Failed,
    FailureReason,
    Finished,
    FinishReason,
    Generate,
    ModelInfo,
    RequestStats,
    Score,
    Scored,
    StepHistogram,
    StepSums,
    Window,
)

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "llada_mha"


class Wait(Enum):
    """Steps that are no events."""

    FOREVER = auto()  # until the request is cancelled or the engine dies
    GATE = auto()  # until the test opens the engine's gate


Step = RequestEvent | Wait
Script = Callable[[Generate], Sequence[Step]]


def make_model(**changes: object) -> ModelInfo:
    fields = {
        "name": "tiny",
        "directory": str(FIXTURE),
        "max_model_len": 512,
        "max_request_tokens": 512,
        "vocab_size": 1024,
        "mask_token_id": 1000,
        "eos_token_ids": [1001],
        "retention_ratio": 1.0,
        "device": "cpu",
        "dtype": "float32",
    }
    return ModelInfo(**(fields | changes))  # type: ignore[arg-type]


def make_window(number: int) -> Window:
    return Window(
        number=number,
        start_seconds=1000.0 + 10 * number,
        end_seconds=1010.0 + 10 * number,
        generation=7,
        peak_bytes={"activations": 300 + number, "free": 600},
        peak_step_tokens=40,
        peak_step_logits_rows=8,
        steps=2,
        tokens=60,
        step_requests=6,
        committed_tokens=12,
        oom=1,
        most_waiting=5,
        most_running=3,
        least_free_pages=70,
        least_step_tokens=99,
        tight_steps=1,
        mean_batch_fill=0.25,
    )


def make_snapshot(*, slots: int = 4) -> EngineSnapshot:
    histogram = StepHistogram([0.01, float("inf")], [1, 2], 0.5)
    return EngineSnapshot(
        requests_running=1,
        requests_waiting=2,
        tokens_total={"refresh": 10, "reuse": 20},
        steps_total={"refresh": 1, "reuse": 2, "mixed": 3},
        committed_tokens_total=5,
        step_seconds={"refresh": histogram, "reuse": histogram, "mixed": histogram},
        batch_fill=0.5,
        token_budget=4096,
        max_num_seqs=slots,
        max_num_logits=2048,
        max_model_len=2048,
        kv_pages={"free": 75, "used": 25},
        prefix_pages=10,
        prefix_tokens_total={"queried": 200, "hit": 120, "saved": 150, "evicted": 40},
        preemptions_total=6,
        page_size=16,
        memory_bytes={"weights": 100, "free": 900},
        memory_peak_bytes={"weights": 100, "free": 900},
        memory_predicted_bytes={"weights": 90, "free": 910},
        device_memory_bytes=1000,
        oom_total={"refresh": 0, "reuse": 1},
        cancelled_total=3,
        refused_total=4,
        not_finite_total=5,
        is_sound=True,
        tuning_generation=7,
        tuning_errors_total=1,
        is_tuning_refused=True,
        live={"max_num_batched_tokens": 4096, "refresh_share": 0.5},
        floors={"max_num_batched_tokens": 99},
        ceilings={"max_num_batched_tokens": 8192},
        step_sums={"refresh": StepSums(2, 30, 0.3, 5.0, 500)},
        step_sums_left_out={"warm_up": 8, "outlier": 1},
        windows=[make_window(3), make_window(4)],
    )


def block(
    request: Generate, token_ids: Sequence[int], *, forwards: int, refreshes: int = 1
) -> BlockCommitted:
    stats = RequestStats(forwards, refreshes, 0.001)
    return BlockCommitted(request.request_id, list(token_ids), [-0.5] * len(token_ids), stats)


def finished(request: Generate, *, forwards: int = 8, reason: FinishReason = FinishReason.LENGTH) -> Finished:
    return Finished(request.request_id, reason, RequestStats(forwards, 1, 0.001))


def failed(request: Generate, reason: FailureReason) -> Failed:
    return Failed(request.request_id, reason, f"scripted {reason}")


def count_up(request: Generate) -> list[Step]:
    """Answer with tokens 0, 1, 2, ... in blocks of the request's length, one forward pass a token."""
    size, total = request.diffusion.block_length, request.max_tokens
    steps: list[Step] = []
    for number, start in enumerate(range(0, total, size), start=1):
        tokens = list(range(start, min(start + size, total)))
        if request.wants_canvas:
            half = [*tokens[: len(tokens) // 2], *[-1] * (len(tokens) - len(tokens) // 2)]
            steps.append(CanvasUpdate(request.request_id, start, half, start + 1))
        steps.append(block(request, tokens, forwards=start + len(tokens), refreshes=number))
    return [*steps, finished(request, forwards=total)]


def hang(request: Generate) -> list[Step]:
    return [Wait.FOREVER]


def one_block_then(*steps: Callable[[Generate], Step]) -> Script:
    """Tokens 1, 2, 3 as a block, then what ``steps`` make of the request."""
    return lambda request: [block(request, [1, 2, 3], forwards=3), *(step(request) for step in steps)]


def score_by_place(request: Score) -> Scored:
    """A token's log probability is its position / -10; that of token 7, the second likeliest, is 5 lower."""
    logprobs = [position / -10 for position in request.scored]
    likeliest = [
        [(request.tokens[position], logprob), (7, logprob - 5)][: request.top_logprobs]
        for position, logprob in zip(request.scored, logprobs, strict=True)
    ]
    top = likeliest if request.top_logprobs else []
    return Scored(request.request_id, logprobs, RequestStats(1, 1, 0.001), top)


def hang_scoring(request: Score) -> None:
    return None


ScoreScript = Callable[[Score], Scored | Finished | Failed | None]  # None: no answer


class ScriptedEngine:
    """Follows ``script`` for each request and remembers which ones are open."""

    def __init__(self, script: Script = count_up, *, slots: int = 4, **model: object) -> None:
        self.script = script
        self.requests: list[Generate] = []
        self.score_script: ScoreScript = score_by_place
        self.scores: list[Score] = []
        self.most_open = 0
        self.open: set[str] = set()
        self.gate = asyncio.Event()
        self.snapshot: EngineSnapshot | None = make_snapshot(slots=slots)
        self._model = make_model(**model)
        self._exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def model(self) -> ModelInfo:
        return self._model

    @property
    def is_alive(self) -> bool:
        return not self._exit_code.done()

    async def generate(self, request: Generate) -> AsyncIterator[RequestEvent]:
        self.requests.append(request)
        self.open.add(request.request_id)
        try:
            for step in self.script(request):
                if step is Wait.FOREVER:
                    await self.wait_until_dead()
                elif step is Wait.GATE:
                    await self.gate.wait()
                    continue
                if not self.is_alive or step is Wait.FOREVER:
                    raise EngineDeadError("scripted death")
                await asyncio.sleep(0)  # as a socket would, let others run between messages
                yield step
        finally:
            self.open.discard(request.request_id)

    async def score(self, request: Score) -> Scored | Finished | Failed:
        self.scores.append(request)
        self.open.add(request.request_id)
        self.most_open = max(self.most_open, len(self.open))
        try:
            answer = self.score_script(request)
            if answer is None:
                await self.wait_until_dead()
            if answer is None or not self.is_alive:
                raise EngineDeadError("scripted death")
            await asyncio.sleep(0)
            return answer
        finally:
            self.open.discard(request.request_id)

    def die(self, exit_code: int) -> None:
        self._exit_code.set_result(exit_code)

    async def wait_until_dead(self) -> int:
        return await asyncio.shield(self._exit_code)

    async def close(self) -> None:
        pass
