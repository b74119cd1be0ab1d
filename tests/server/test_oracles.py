"""The engine equals the slow loops of ``oracle`` in every family, cache, strategy and ratio."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import pytest
from checkpoints import EOS, MASK, Size, make_checkpoint, make_config, write_config
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import Finished, FinishReason, Generate
from dllm_server.settings import Strategy
from engines import (
    make_engine,
    make_request,
    run_all,
    run_alone,
    start_engine_in_process,
    used_pages,
)
from oracle import Decoded, OracleModel, Plan, decode

SIZES = {
    "llada": Size(),
    "llada-gqa": Size(n_kv_heads=2, seed=1),
    "llada-tied": Size(is_tied=True, n_kv_heads=1, seed=2),
    "dream": Size(family="dream", n_kv_heads=2, seed=3),
    "dream-tied": Size(family="dream", is_tied=True, seed=4),
}
PLANS = {
    "no-cache": Plan(8, "quota", 2, interval=1),
    "dual-cache": Plan(8, "quota", 2),
    "every-second-step": Plan(8, "quota", 1, interval=2),
    "every-third-step": Plan(8, "threshold", 0.6, interval=3, retention=0.5),
    "threshold": Plan(16, "threshold", 0.4),
    "factor": Plan(8, "factor", 1.2),
    "entropy-bound": Plan(8, "entropy_bound", 1.5),
    "from-left-to-right": Plan(8, "sequential", 3),
    "half-kept": Plan(8, "quota", 2, retention=0.5),
    "hardly-any-kept": Plan(8, "quota", 2, retention=0.01),
    "ratio-0.3-threshold": Plan(4, "threshold", 0.5, retention=0.3),
    "prompt-every-second-block": Plan(4, "quota", 2, prompt_interval=2),
    "prompt-once": Plan(3, "threshold", 0.5, prompt_interval=100, retention=0.5),
    "prompt-once-no-cache": Plan(4, "quota", 2, interval=1, prompt_interval=100),
    "prompt-every-third-block-near-masks": Plan(2, "quota", 1, prompt_interval=3, reach=3, retention=0.5),
    "prompt-once-no-masks-behind": Plan(4, "quota", 1, interval=2, prompt_interval=100, reach=0),
}


@cache
def parts(name: str) -> tuple[Engine, OracleModel]:
    directory = make_checkpoint(Path(mkdtemp(prefix="dllm-test-")), SIZES[name])
    return make_engine(directory), OracleModel(directory)


def random_prompt(seed: int, length: int) -> list[int]:
    return [random.Random(seed).randrange(59) for _ in range(length)]


def as_request(request_id: str, prompt: list[int], max_tokens: int, plan: Plan) -> Generate:
    return make_request(
        request_id,
        prompt=prompt,
        max_tokens=max_tokens,
        block_length=plan.block_length,
        refresh_interval=plan.interval,
        strategy=Strategy(plan.strategy),
        value=plan.value,
        retention_ratio=plan.retention,
        stop_token_ids=plan.stops,
        min_tokens=plan.min_tokens,
        prompt_refresh_interval=plan.prompt_interval,
        refresh_window=plan.reach,
    )


def clear_cases(name: str, plan: Plan, shapes: list[tuple[int, int]]) -> list[tuple[list[int], int, Decoded]]:
    """A prompt for each (prompt length, max_tokens), such that rounding decides nothing."""
    model, cases = parts(name)[1], []
    for length, max_tokens in shapes:
        for seed in range(20):
            prompt = random_prompt(seed + length, length)
            expected = decode(model, prompt, max_tokens, plan)
            if expected.gap > 2e-5:
                cases.append((prompt, max_tokens, expected))
                break
    assert len(cases) == len(shapes)
    return cases


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("name", SIZES)
def test_the_engine_equals_the_oracle(name: str, plan: Plan) -> None:
    cases = clear_cases(name, plan, [(1, 9), (6, 16), (19, 8)])
    requests = [as_request(str(i), prompt, tokens, plan) for i, (prompt, tokens, _) in enumerate(cases)]

    outcomes = run_all(parts(name)[0], requests)

    for number, (_, _, expected) in enumerate(cases):
        outcome = outcomes[str(number)]
        assert outcome.tokens == expected.tokens
        assert outcome.stats.forward_passes == expected.forwards
        assert outcome.stats.refresh_passes == expected.refreshes


@pytest.mark.parametrize("name", ["llada-gqa", "dream"])
@pytest.mark.parametrize("max_tokens", [1, 31, 33])
def test_a_partial_last_block_equals_the_oracle(name: str, max_tokens: int) -> None:
    plan = Plan(32, "quota", 4)
    ((prompt, _, expected),) = clear_cases(name, plan, [(7, max_tokens)])

    outcome = run_alone(parts(name)[0], as_request("r", prompt, max_tokens, plan))

    assert outcome.tokens == expected.tokens
    assert len(outcome.tokens) == max_tokens
    assert outcome.stats.forward_passes == expected.forwards


@pytest.mark.parametrize("name", ["llada", "dream"])
def test_a_request_as_long_as_the_model_equals_the_oracle(name: str) -> None:
    plan = Plan(32, "quota", 8, retention=0.5)
    ((prompt, _, expected),) = clear_cases(name, plan, [(28, 100)])

    outcome = run_alone(parts(name)[0], as_request("r", prompt, 100, plan))

    assert outcome.tokens == expected.tokens


@pytest.mark.parametrize("name", ["llada", "dream"])
def test_a_block_longer_than_max_tokens_is_cut_to_it(name: str) -> None:
    plan = Plan(64, "quota", 3)
    ((prompt, _, expected),) = clear_cases(name, plan, [(5, 11)])

    assert run_alone(parts(name)[0], as_request("r", prompt, 11, plan)).tokens == expected.tokens


def test_a_mask_token_in_the_prompt_is_just_a_token() -> None:
    engine, model = parts("llada")
    prompt, plan = [3, MASK, MASK, 9, MASK], Plan(8, "quota", 2)
    expected = decode(model, prompt, 16, plan)

    outcome = run_alone(engine, as_request("r", prompt, 16, plan))

    assert outcome.tokens == expected.tokens
    assert MASK not in outcome.tokens


def test_a_stop_token_ends_a_request_early_and_saves_forward_passes() -> None:
    engine, model = parts("llada")
    answer = decode(model, [3, 5, 7], 24, Plan(4, "quota", 1)).tokens
    plan = Plan(4, "quota", 1, stops=(answer[9],))
    expected = decode(model, [3, 5, 7], 24, plan)
    heeding = as_request("heeds", [3, 5, 7], 24, plan)
    ignoring = as_request("ignores", [3, 5, 7], 24, Plan(4, "quota", 1))

    outcomes = run_all(engine, [heeding, ignoring])

    assert outcomes["heeds"].tokens == expected.tokens == answer[: answer.index(answer[9])]
    assert isinstance(outcomes["heeds"].end, Finished)
    assert outcomes["heeds"].end.reason is FinishReason.STOP
    assert outcomes["heeds"].stats.forward_passes == expected.forwards < 24
    assert outcomes["ignores"].stats.forward_passes == 24
    assert outcomes["ignores"].tokens == answer
    assert used_pages(engine) == 0


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_every_eos_that_a_checkpoint_names_ends_a_request(tmp_path: Path, family: str) -> None:
    directory = make_checkpoint(tmp_path, Size(family=family, n_kv_heads=2, seed=3))
    model, free = OracleModel(directory), Plan(8, "quota", 1)
    answer = decode(model, [3, 5, 7], 24, free).tokens
    last, early = answer[20], next(token for token in answer[8:16] if token != answer[20])
    config = make_config(Size(family=family, n_kv_heads=2)) | {"eos_token_id": [last, EOS]}
    write_config(directory, config)
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [EOS, early]}))
    started = start_engine_in_process(directory)
    plan = Plan(8, "quota", 1, stops=(last, EOS, early))
    expected = decode(model, [3, 5, 7], 24, plan)

    asked = as_request("r", [3, 5, 7], 24, free)
    outcome = run_alone(
        started.engine, msgspec.structs.replace(asked, stop_token_ids=started.model.eos_token_ids)
    )

    assert set(started.model.eos_token_ids) == {last, EOS, early}
    assert outcome.tokens == expected.tokens
    assert 0 < len(expected.tokens) < 20
    assert outcome.stats.forward_passes == expected.forwards


@pytest.mark.parametrize("min_tokens", [0, 3, 8, 24])
@pytest.mark.parametrize("name", ["llada", "dream"])
def test_stop_tokens_are_no_choice_before_min_tokens(name: str, min_tokens: int) -> None:
    engine, model = parts(name)
    answer = decode(model, [3, 5, 7], 24, Plan(8, "quota", 2)).tokens
    plan = Plan(8, "quota", 2, stops=tuple(answer[1:8]), min_tokens=min_tokens)
    expected = decode(model, [3, 5, 7], 24, plan)

    outcome = run_alone(engine, as_request("r", [3, 5, 7], 24, plan))

    assert outcome.tokens == expected.tokens
    assert len(outcome.tokens) >= min_tokens
    assert outcome.logprobs == pytest.approx(
        [float(row[token]) for row, token in zip(expected.log_probabilities, expected.tokens, strict=True)],
        abs=1e-4,
    )


@pytest.mark.parametrize("min_tokens", [0, 4])
@pytest.mark.parametrize("name", ["llada", "dream"])
def test_alternatives_are_the_oracles_at_the_step_that_committed_the_token(
    name: str, min_tokens: int
) -> None:
    engine, model = parts(name)
    plan = Plan(8, "threshold", 0.4, stops=(7, 8, 9), min_tokens=min_tokens)
    expected = decode(model, [3, 5, 7], 20, plan)
    request = msgspec.structs.replace(as_request("r", [3, 5, 7], 20, plan), top_logprobs=5)

    outcome = run_alone(engine, request)

    assert outcome.tokens == expected.tokens
    assert len(outcome.alternatives) == len(outcome.tokens) > 0
    for found, row in zip(outcome.alternatives, expected.log_probabilities, strict=True):
        assert [logprob for _, logprob in found] == pytest.approx(row.topk(5).values.tolist(), abs=1e-4)
        assert [float(row[token]) for token, _ in found] == pytest.approx([p for _, p in found], abs=1e-4)


def test_an_eos_in_the_prompt_ends_nothing() -> None:
    outcome = run_alone(parts("llada")[0], make_request(prompt=[3, EOS, EOS], stop_token_ids=[EOS]))

    assert len(outcome.tokens) == 16
