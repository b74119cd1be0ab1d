"""A prompt's scores equal the definition worked out in plain torch."""

from __future__ import annotations

import asyncio
import random
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, cast

import pytest
from checkpoints import MASK, Size, make_checkpoint
from dllm_server.api.answers.likelihood import LikelihoodPlan
from dllm_server.api.answers.prompt_scoring import PromptScoring
from dllm_server.engine.engine import Engine
from dllm_server.engine.process.client import EngineClient
from dllm_server.engine.requests.messages import Failed, Finished, Score, Scored
from dllm_server.settings import DiffusionSettings
from engines import make_engine, run_alone
from oracle import OracleModel, log_likelihoods


def make_plan(length: int, *, seed: int | None = None, **likelihood: Any) -> LikelihoodPlan:
    named = {f"likelihood_{name}": value for name, value in likelihood.items()}
    return LikelihoodPlan.of(length, DiffusionSettings(**named), seed)


class InProcess:
    """The engine without its process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def score(self, request: Score) -> Scored | Finished | Failed:
        return run_alone(self._engine, request).end


SIZES = {"llada": Size(n_kv_heads=2), "dream": Size(family="dream", n_kv_heads=2)}


@cache
def parts(name: str) -> tuple[Engine, OracleModel]:
    directory = make_checkpoint(Path(mkdtemp(prefix="dllm-test-")), SIZES[name])
    return make_engine(directory), OracleModel(directory)


def scores_of(name: str, tokens: list[int], plan: LikelihoodPlan, top: int = 0) -> list[Any]:
    engine = cast("EngineClient", InProcess(parts(name)[0]))
    scoring = PromptScoring(engine, tokens, plan, request_id="t", top_logprobs=top)
    return asyncio.run(scoring.run())[0].scores()


@pytest.mark.parametrize("name", SIZES)
def test_a_text_is_scored_left_to_right_as_plain_torch_scores_it(name: str) -> None:
    tokens = [random.Random(4).randrange(MASK) for _ in range(9)]
    model = parts(name)[1]

    scores = scores_of(name, tokens, make_plan(len(tokens)), top=3)

    assert scores[0] is None
    for position in range(1, len(tokens)):
        row = log_likelihoods(model, tokens, [position], position)[position]
        assert scores[position].logprob == pytest.approx(float(row[tokens[position]]), abs=5e-5)
        assert [logprob for _, logprob in scores[position].likeliest] == pytest.approx(
            row.topk(3).values.tolist(), abs=5e-5
        )


@pytest.mark.parametrize("name", SIZES)
def test_a_block_is_scored_by_the_bound_as_plain_torch_scores_it(name: str) -> None:
    tokens = [random.Random(5).randrange(MASK) for _ in range(8)]
    model = parts(name)[1]
    plan = make_plan(len(tokens), start=3, block_length=3, samples=6, seed=11)
    expected = dict.fromkeys(range(3, 8), 0.0)
    for one in plan.passes():
        size = one.masked_from - (3 if one.masked_from <= 6 else 6)
        rows = log_likelihoods(model, tokens, list(one.scored), one.masked_from)
        for position, row in rows.items():
            expected[position] += size / len(one.scored) / 6 * float(row[tokens[position]])

    scores = scores_of(name, tokens, plan)

    assert [score and score.logprob for score in scores[:3]] == [None] * 3
    assert [score.logprob for score in scores[3:]] == pytest.approx(list(expected.values()), abs=5e-4)
