from __future__ import annotations

from typing import Any

import pytest
from dllm_server.api.answers.plan import ChoicePlan, Limits, Prompt, choice_seed, plan_choices
from dllm_server.api.schemas.errors import ApiError
from dllm_server.api.schemas.requests import CompletionRequest
from dllm_server.engine.requests.messages import BlockCausalInfo
from dllm_server.settings import DiffusionSettings, Strategy, UnmaskingSettings
from scripted_engine import make_model


def plan(
    *prompts: list[int],
    max_tokens: int | None = None,
    model: dict[str, Any] | None = None,
    defaults: DiffusionSettings | None = None,
    **fields: Any,
) -> list[ChoicePlan]:
    prompts = prompts or ([1, 2],)
    return plan_choices(
        CompletionRequest(prompt=list(prompts), max_tokens=max_tokens, **fields),
        [Prompt(tokens) for tokens in prompts],
        Limits(make_model(**(model or {})), defaults or DiffusionSettings()),
        request_id="r",
    )


def refusal(*prompts: list[int], **arguments: Any) -> tuple[int, str | None, str | None]:
    with pytest.raises(ApiError) as raised:
        plan(*prompts, **arguments)
    return raised.value.status, raised.value.body.error.param, raised.value.body.error.code


def test_each_prompt_has_n_choices_in_order() -> None:
    plans = plan([1], [2], n=2)

    assert [(p.index, p.prompt.token_ids) for p in plans] == [(0, [1]), (1, [1]), (2, [2]), (3, [2])]


def test_the_engine_ids_of_two_requests_with_one_id_differ() -> None:
    ids = [p.generate.request_id for p in [*plan(n=2), *plan(n=2)]]

    assert len(set(ids)) == 4
    assert all(request_id.startswith("r-") for request_id in ids)


def test_choices_have_different_seeds_that_follow_from_the_request() -> None:
    seeds = [p.generate.sampling.seed for p in plan(n=16, seed=5)]

    assert seeds[0] == 5
    assert len(set(seeds)) == 16
    assert seeds == [p.generate.sampling.seed for p in plan(n=16, seed=5)]
    assert not set(seeds) & {p.generate.sampling.seed for p in plan(n=16, seed=6)}


def test_without_a_seed_two_requests_differ() -> None:
    assert plan()[0].generate.sampling.seed != plan()[0].generate.sampling.seed


def test_no_two_seeds_from_zero_on_are_the_same() -> None:
    seeds = [0, 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1]

    assert len({choice_seed(seed, 0) for seed in seeds}) == len(seeds)


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("index", [0, 1])
def test_seeds_fit_63_bits(seed: int, index: int) -> None:
    assert 0 <= choice_seed(seed, index) < 2**64


@pytest.mark.parametrize(("prompt_tokens", "length"), [(2, 16), (500, 12), (511, 1)])
def test_a_length_left_out_is_the_default_or_what_is_left(prompt_tokens: int, length: int) -> None:
    assert plan([1] * prompt_tokens)[0].generate.max_tokens == length


def test_prompt_and_completion_may_fill_the_context() -> None:
    assert plan([1] * 12, max_tokens=500)[0].generate.max_tokens == 500


def test_what_exceeds_the_context_is_refused() -> None:
    too_long = "context_length_exceeded"
    assert refusal([1] * 12, max_tokens=501) == (400, "max_tokens", too_long)
    assert refusal([1] * 512) == (400, "prompt", too_long)
    assert refusal([1] * 12, max_tokens=50, model={"max_request_tokens": 61}) == (400, "max_tokens", too_long)


def test_clients_know_a_full_context_by_the_words_of_its_refusal() -> None:
    """litellm and LangChain look for these, not for the code, to shorten a conversation and try again."""
    with pytest.raises(ApiError) as prompt_too_long:
        plan([1] * 512)
    with pytest.raises(ApiError) as too_much_asked:
        plan([1] * 12, max_tokens=501)

    for refused in (prompt_too_long, too_much_asked):
        assert "This model's maximum context length is 512 tokens" in refused.value.body.error.message
    assert "prompt is too long" in prompt_too_long.value.body.error.message


def test_an_empty_prompt_and_an_unknown_token_are_refused() -> None:
    assert refusal([1], model={"vocab_size": 1})[:2] == (400, "prompt")


def test_diffusion_fields_left_out_come_from_the_server() -> None:
    defaults = DiffusionSettings(
        block_length=8, unmasking=UnmaskingSettings(strategy=Strategy.QUOTA, value=4), retention_ratio=0.5
    )

    merged = plan(defaults=defaults, diffusion={"unmasking": {"value": 2}})[0].generate.diffusion

    assert (merged.block_length, merged.strategy, merged.value) == (8, Strategy.QUOTA, 2)
    assert merged.retention_ratio == 0.5


@pytest.mark.parametrize("servers", Strategy)
@pytest.mark.parametrize("asked", Strategy)
def test_a_strategy_given_alone_takes_the_servers_value_or_its_own(
    servers: Strategy, asked: Strategy
) -> None:
    blocks = BlockCausalInfo(32, servers, 1.0, 0.5, 8, None)  # of a model that follows every strategy
    defaults = DiffusionSettings(
        unmasking=UnmaskingSettings(strategy=servers, value=1.0), edit_threshold=0.5, max_post_edit_steps=8
    )

    (choice,) = plan(
        defaults=defaults, diffusion={"unmasking": {"strategy": asked}}, model={"blocks": blocks}
    )

    merged, own = choice.generate.diffusion, UnmaskingSettings(strategy=asked).value
    assert (merged.strategy, merged.value) == (asked, 1.0 if asked is servers else own)
    assert merged.edit_threshold == (0.5 if asked is Strategy.JOINT_THRESHOLD else None)


def test_null_refreshes_once_a_block_whatever_the_server_does() -> None:
    defaults = DiffusionSettings(refresh_interval=1)

    merged = plan(defaults=defaults, diffusion={"refresh_interval": None})[0].generate.diffusion

    assert merged.refresh_interval is None


def test_when_the_prompt_is_refreshed_is_asked_for_by_bidirectional_models_alone() -> None:
    defaults = DiffusionSettings(prompt_refresh_interval=4, refresh_window=8)
    asked = {"prompt_refresh_interval": 2, "refresh_window": None}

    merged = plan(defaults=defaults, diffusion=asked)[0].generate.diffusion
    plain = plan(defaults=defaults)[0].generate.diffusion

    assert (merged.prompt_refresh_interval, merged.refresh_window) == (2, None)
    assert (plain.prompt_refresh_interval, plain.refresh_window) == (4, 8)
    blocks = BlockCausalInfo(32, Strategy.THRESHOLD, 0.9, None, None, None)
    for name in ("prompt_refresh_interval", "refresh_window"):
        exact = refusal(model={"blocks": blocks}, diffusion={name: 2})
        assert exact[:2] == (400, f"diffusion.{name}")


def test_a_retention_ratio_above_the_servers_is_refused() -> None:
    defaults = DiffusionSettings(retention_ratio=0.5)
    model = {"retention_ratio": 0.5}

    assert refusal(defaults=defaults, model=model, diffusion={"retention_ratio": 0.6})[:2] == (
        400,
        "diffusion.retention_ratio",
    )
    assert plan(defaults=defaults, model=model, diffusion={"retention_ratio": 0.25})


def test_top_k_below_and_above_its_range_keeps_the_whole_vocabulary() -> None:
    assert plan(top_k=-1)[0].generate.sampling.top_k == 0
    assert plan(top_k=10**6)[0].generate.sampling.top_k == 1024


BLOCKS = BlockCausalInfo(4, Strategy.THRESHOLD, 0.9, None, None, None)


def test_what_means_nothing_to_a_models_attention_is_refused_by_name() -> None:
    exact = {"model": {"blocks": BLOCKS}, "defaults": DiffusionSettings(block_length=4)}

    assert refusal(cache_salt="tenant") == (400, "cache_salt", None)
    assert refusal(echo=True, logprobs=1, **exact) == (400, "echo", None)
    assert plan(cache_salt="tenant", **exact)[0].generate.cache_salt == "tenant"
