"""Score a model: every item of a family through the engine, checked by the family's own verifier."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

from dllm_server.engine.engine import Engine
from dllm_server.engine.process.offline import complete
from dllm_server.engine.requests.messages import Diffusion, Generate, Sampling
from dllm_server.evaluation.tasks import EvalItem, Family
from dllm_server.models.tokenizer import Tokenizer
from dllm_server.settings import DiffusionSettings


@dataclass(frozen=True, slots=True)
class Score:
    """One cell of the table. ``tokens`` are generated up to EOS; ``passes`` sums the forward passes of the
    items.

    ``answer_tokens`` is the median length of an answer.
    """

    family: str
    mode: str
    items: int
    correct: int
    tokens: int
    passes: int
    seconds: float
    answer_tokens: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.items

    @property
    def tokens_per_forward(self) -> float:
        return self.tokens / max(self.passes, 1)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)

    def row(self) -> dict[str, str | int | float]:
        """The fields and the figures derived from them."""
        derived = {
            "accuracy": self.accuracy,
            "tokens_per_forward": self.tokens_per_forward,
            "tokens_per_second": self.tokens_per_second,
        }
        return dataclasses.asdict(self) | derived


def score(
    engine: Engine,
    tokenizer: Tokenizer,
    family: Family,
    items: Sequence[EvalItem],
    mode: str,
    settings: DiffusionSettings,
) -> Score:
    diffusion = Diffusion.of(settings)
    requests = [
        Generate(
            request_id=f"{family}-{index}",
            prompt=tokenizer.encode_chat([{"role": "user", "content": item.question}]),
            max_tokens=item.max_tokens,
            sampling=Sampling(),
            diffusion=diffusion,
            stop_token_ids=list(engine.runner.model.config.eos_token_ids),
        )
        for index, item in enumerate(items)
    ]
    started = time.monotonic()
    completions = complete(engine, requests)
    seconds = time.monotonic() - started
    answers = [tokenizer.decode(completion.token_ids) for completion in completions]
    lengths = sorted(len(completion.token_ids) for completion in completions)
    return Score(
        family=family.value,
        mode=mode,
        items=len(items),
        correct=sum(item.check(answer) for item, answer in zip(items, answers, strict=True)),
        tokens=sum(lengths),
        passes=sum(completion.stats.forward_passes for completion in completions),
        seconds=seconds,
        answer_tokens=lengths[len(lengths) // 2],
    )
