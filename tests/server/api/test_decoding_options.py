"""What /v1/models says a request may ask for is what requests may ask for."""

from __future__ import annotations

from typing import Any

import pytest
from dllm_server.api.answers.decoding_options import decoding_options
from dllm_server.api.answers.plan import Limits, merge_diffusion
from dllm_server.api.schemas.errors import ApiError
from dllm_server.engine.requests.decoding import diffusion_defaults
from dllm_server.engine.requests.messages import BlockCausalInfo
from dllm_server.settings import EngineSettings, Strategy
from scripted_engine import make_model
from scripted_server import ScriptedServer

SDAR = BlockCausalInfo(4, Strategy.THRESHOLD, 0.9, None, None, None)
LLADA21 = BlockCausalInfo(32, Strategy.JOINT_THRESHOLD, 0.7, 0.5, 16, None)
FAST_DLLM = BlockCausalInfo(32, Strategy.THRESHOLD, 0.9, None, None, 8)
ON_A_GRID = {
    "block_length",
    "retention_ratio",
    "refresh_interval",
    "prompt_refresh_interval",
    "refresh_window",
}


def limits_of(blocks: BlockCausalInfo | None, retention_ratio: float = 1.0) -> Limits:
    model = make_model(blocks=blocks, retention_ratio=retention_ratio)
    return Limits(model, diffusion_defaults(EngineSettings(retention_ratio=retention_ratio), blocks))


@pytest.mark.parametrize(
    ("blocks", "refused"),
    [
        (None, {"edit_threshold", "max_post_edit_steps", "sub_block_length"}),
        (SDAR, ON_A_GRID | {"sub_block_length"}),
        (LLADA21, ON_A_GRID | {"sub_block_length"}),
        (FAST_DLLM, ON_A_GRID | {"edit_threshold", "max_post_edit_steps"}),
    ],
)
def test_the_fields_that_mean_nothing_to_the_model_are_named(
    blocks: BlockCausalInfo | None, refused: set[str]
) -> None:
    options = decoding_options(limits_of(blocks), has_chat_template=True)

    assert set(options.refused) == refused
    assert options.attention == ("bidirectional" if blocks is None else "block_causal")
    assert all(why.startswith("diffusion.") for why in options.refused.values())


@pytest.mark.parametrize("blocks", [None, SDAR, LLADA21, FAST_DLLM])
def test_strategies_are_those_that_requests_may_name(blocks: BlockCausalInfo | None) -> None:
    limits = limits_of(blocks)
    options = decoding_options(limits, has_chat_template=True)

    for strategy in Strategy:
        given: dict[str, Any] = {"unmasking": {"strategy": strategy}}
        if strategy in options.strategies:
            assert merge_diffusion(given, limits).unmasking.value == options.strategies[strategy]
        else:
            with pytest.raises(ApiError):
                merge_diffusion(given, limits)


def test_the_largest_retention_ratio_is_the_servers() -> None:
    options = decoding_options(limits_of(None, 0.5), has_chat_template=False)

    assert options.most_retention_ratio == options.defaults.retention_ratio == 0.5
    assert not options.has_chat_template


def test_the_models_card_holds_them() -> None:
    with ScriptedServer() as server:
        (card,) = server.http.get("/v1/models").json()["data"]

        assert card == server.http.get("/v1/models/tiny").json()
        assert card["decoding"]["defaults"]["block_length"] == 4
        assert set(card["decoding"]["strategies"]) == set(Strategy) - {"joint_threshold"}
