"""Defaults of decoding by family, and what a model cannot follow."""

from __future__ import annotations

from typing import Any

import pytest
from dllm_server.engine.requests.decoding import diffusion_defaults, misfit, server_misfit, with_edits
from dllm_server.engine.requests.messages import BlockCausalInfo
from dllm_server.settings import DiffusionSettings, EngineSettings, Strategy, UnmaskingSettings

PLAIN = BlockCausalInfo(32, Strategy.THRESHOLD, 0.95, None, None, None)
EDITING = BlockCausalInfo(32, Strategy.JOINT_THRESHOLD, 0.7, 0.5, 8, None)
SHIFTED = BlockCausalInfo(32, Strategy.THRESHOLD, 0.9, None, None, 8)
JOINT = {"strategy": "joint_threshold"}


def found(given: dict[str, Any], blocks: BlockCausalInfo | None) -> str | None:
    length = {"block_length": blocks.block_length} if blocks is not None else {}
    settings = DiffusionSettings.model_validate(length | given)
    problem = misfit(given, settings, blocks)
    return problem and problem[0]


@pytest.mark.parametrize(
    ("given", "blocks", "field"),
    [
        ({}, None, None),
        ({"retention_ratio": 0.5, "refresh_interval": 2, "block_length": 7}, None, None),
        ({"unmasking": {"strategy": "sequential"}, "steps_per_block": 4}, None, None),
        ({"prompt_refresh_interval": 8, "refresh_window": 0}, None, None),
        ({"prompt_refresh_interval": 1, "refresh_window": None}, None, None),
        ({"refresh_window": 32}, None, "refresh_window"),
        ({"unmasking": JOINT}, None, "unmasking.strategy"),
        ({"edit_threshold": 0.5}, None, "edit_threshold"),
        ({"max_post_edit_steps": 1}, None, "max_post_edit_steps"),
        ({"sub_block_length": 8}, None, "sub_block_length"),
        ({"sub_block_length": None}, None, None),
        ({"block_length": 32, "steps_per_block": 4}, PLAIN, None),
        ({"block_length": 16}, PLAIN, "block_length"),
        ({"retention_ratio": 1.0}, PLAIN, "retention_ratio"),
        ({"refresh_interval": 1}, PLAIN, "refresh_interval"),
        ({"refresh_interval": None}, PLAIN, None),
        ({"prompt_refresh_interval": 8}, PLAIN, "prompt_refresh_interval"),
        ({"prompt_refresh_interval": 1}, PLAIN, "prompt_refresh_interval"),
        ({"refresh_window": 8}, PLAIN, "refresh_window"),
        ({"sub_block_length": 8}, PLAIN, "sub_block_length"),
        ({"unmasking": JOINT, "edit_threshold": 0.5}, PLAIN, None),
        ({"edit_threshold": 0.5}, PLAIN, "edit_threshold"),
        ({"sub_block_length": 16}, SHIFTED, None),
        ({"sub_block_length": 12}, SHIFTED, "sub_block_length"),
        ({"unmasking": JOINT}, SHIFTED, "unmasking.strategy"),
    ],
)
def test_what_means_nothing_to_a_model_is_named(
    given: dict[str, Any], blocks: BlockCausalInfo | None, field: str | None
) -> None:
    assert found(given, blocks) == field


def test_the_familys_decoding_is_the_default_unless_the_server_sets_one() -> None:
    family = diffusion_defaults(EngineSettings(), EDITING)
    own = diffusion_defaults(EngineSettings(unmasking_strategy=Strategy.QUOTA, block_length=8), EDITING)

    assert (family.block_length, family.unmasking.strategy, family.unmasking.value) == (
        32,
        Strategy.JOINT_THRESHOLD,
        0.7,
    )
    assert (family.edit_threshold, family.max_post_edit_steps) == (0.5, 8)
    assert (own.block_length, own.unmasking.value, own.edit_threshold) == (32, 1.0, None)
    assert diffusion_defaults(EngineSettings(block_length=8), None).block_length == 8
    assert diffusion_defaults(EngineSettings(), SHIFTED).sub_block_length == 8


@pytest.mark.parametrize(
    ("settings", "blocks", "field"),
    [
        ({}, PLAIN, None),
        ({"block_length": 32}, PLAIN, None),
        ({"block_length": 8}, PLAIN, "block_length"),
        ({"retention_ratio": 0.5}, PLAIN, "retention_ratio"),
        ({"refresh_interval": 2}, PLAIN, "refresh_interval"),
        ({"prompt_refresh_interval": 8}, PLAIN, "prompt_refresh_interval"),
        ({"refresh_window": 8}, None, "refresh_window"),
        ({"refresh_window": 8, "prompt_refresh_interval": 2}, None, None),
        ({"refresh_interval": 2, "block_length": 8}, None, None),
        ({"unmasking_strategy": "joint_threshold"}, None, "unmasking.strategy"),
    ],
)
def test_a_servers_settings_have_to_fit_too(
    settings: dict[str, Any], blocks: BlockCausalInfo | None, field: str | None
) -> None:
    problem = server_misfit(EngineSettings.model_validate(settings), blocks)

    assert (problem and problem[0]) == field


def test_editing_without_numbers_takes_the_familys_or_ours() -> None:
    joint = DiffusionSettings(unmasking=UnmaskingSettings(strategy=Strategy.JOINT_THRESHOLD))

    assert with_edits(joint, EDITING).edit_threshold == 0.5
    assert with_edits(joint, PLAIN).edit_threshold == 0.9
    assert with_edits(joint, PLAIN).max_post_edit_steps == 16
    assert with_edits(DiffusionSettings(), EDITING).edit_threshold is None
