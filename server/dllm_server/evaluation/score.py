"""Score a model: every item of a family through the engine, checked by the family's own verifier."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from dllm_server.api.answers.call_grammar import answer_grammar
from dllm_server.api.answers.markup import Dialect
from dllm_server.api.schemas.tools import Tool
from dllm_server.api.text.speech import Markup
from dllm_server.engine.engine import Engine
from dllm_server.engine.process.offline import complete
from dllm_server.engine.requests.messages import Diffusion, FinishReason, Generate, Sampling
from dllm_server.evaluation.modes import ExactMode, Mode
from dllm_server.evaluation.tasks import EvalItem, Family
from dllm_server.evaluation.wording import Wording
from dllm_server.models.tokenizer import Tokenizer
from dllm_server.settings import DiffusionSettings, ToolCallParser
from dllm_server.structure.grammar import Grammar, GrammarKind


@dataclass(frozen=True, slots=True)
class Run:
    """Questions that are asked in one way; ``has_grammar``: the answers are held to what they ask for."""

    mode: Mode | ExactMode
    family: Family
    wording: Wording
    has_grammar: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """One cell of the table. ``tokens`` are generated up to EOS; ``passes`` sums the forward passes of the
    items.

    ``answer_tokens`` is the median length of an answer. ``valid`` counts answers that follow the item's
    schema or call one of its tools, None where it has neither; ``has_grammar``: all were held to it. ``cut``
    counts those that ``max_tokens`` has ended.
    """

    family: str
    wording: str
    mode: str
    has_grammar: bool
    items: int
    correct: int
    valid: int | None
    cut: int
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
    run: Run,
    items: Sequence[EvalItem],
    settings: DiffusionSettings,
) -> Score:
    diffusion, dialect = Diffusion.of(settings), Dialect.of(tokenizer, None)
    requests = [
        Generate(
            request_id=f"{run.family}-{index}",
            prompt=tokenizer.encode_chat([{"role": "user", "content": item.question}], tools=item.tools),
            max_tokens=item.max_tokens,
            sampling=Sampling(),
            diffusion=diffusion,
            stop_token_ids=list(engine.runner.model.config.eos_token_ids),
            grammar=grammar_of(item, dialect) if run.has_grammar else None,
        )
        for index, item in enumerate(items)
    ]
    started = time.monotonic()
    completions = complete(engine, requests)
    seconds = time.monotonic() - started
    kept = [*dialect.markers.values()]
    answers = [tokenizer.decode(completion.token_ids, kept=kept) for completion in completions]
    lengths = sorted(len(completion.token_ids) for completion in completions)
    return Score(
        family=run.family.value,
        wording=run.wording.value,
        mode=run.mode.name,
        has_grammar=run.has_grammar,
        items=len(items),
        correct=sum(item.check(answer) for item, answer in zip(items, answers, strict=True)),
        valid=sum(item.is_valid(answer) for item, answer in zip(items, answers, strict=True))
        if all(item.has_structure for item in items)
        else None,
        cut=sum(completion.reason is FinishReason.LENGTH for completion in completions),
        tokens=sum(lengths),
        passes=sum(completion.stats.forward_passes for completion in completions),
        seconds=seconds,
        answer_tokens=lengths[len(lengths) // 2],
    )


def grammar_of(item: EvalItem, dialect: Dialect) -> Grammar:
    """What the API holds the answer to where a client asks for the item's schema, or for a call."""
    if item.schema is not None:
        return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(dict(item.schema)))
    tools = [Tool.model_validate(tool) for tool in item.tools]
    return answer_grammar(Markup(calls=dialect.calls, is_one_call=True), tools, None, dialect.markers)


def calls_as_asked(tokenizer: Tokenizer) -> bool:
    """Whether a model is shown tools, and calls them in the format that the family of calls is checked in."""
    is_hermes = Dialect.of(tokenizer, None).calls is ToolCallParser.HERMES
    return tokenizer.template.shows_tools and is_hermes
