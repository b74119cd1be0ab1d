"""What a request gets that asks for no other decoding, and what its model cannot follow. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dllm_server.engine.requests.messages import BlockCausalInfo
from dllm_server.settings import DiffusionSettings, EngineSettings, Strategy, UnmaskingSettings

EDIT_THRESHOLD, MOST_POST_EDIT_STEPS = 0.9, 16

_EXACT_ONLY = ("edit_threshold", "max_post_edit_steps", "sub_block_length")
_APPROXIMATE_ONLY = ("retention_ratio", "refresh_interval", "prompt_refresh_interval", "refresh_window")


def diffusion_defaults(settings: EngineSettings, blocks: BlockCausalInfo | None) -> DiffusionSettings:
    """The server's own settings; of a block-causal model its family's where the server sets none."""
    own = settings.diffusion_defaults()
    if blocks is None:
        return own
    is_set = settings.model_fields_set
    strategy = own.unmasking
    if not is_set & {"unmasking_strategy", "unmasking_value"}:
        strategy = UnmaskingSettings(strategy=blocks.strategy, value=blocks.value)
    changes = {
        "block_length": blocks.block_length,
        "refresh_interval": None,
        "prompt_refresh_interval": 1,
        "refresh_window": None,
        "retention_ratio": 1.0,
        "unmasking": strategy,
        "sub_block_length": blocks.sub_block_length,
    }
    return with_edits(own.model_copy(update=changes), blocks)


def server_misfit(settings: EngineSettings, blocks: BlockCausalInfo | None) -> tuple[str, str] | None:
    """``misfit`` of the settings that the server was given."""
    names = settings.model_fields_set & {"block_length", *_APPROXIMATE_ONLY}
    given = {name: getattr(settings, name) for name in names}
    return misfit(given, diffusion_defaults(settings, blocks).model_copy(update=given), blocks)


def with_edits(settings: DiffusionSettings, blocks: BlockCausalInfo | None) -> DiffusionSettings:
    """What the strategy that edits needs, from the family where nobody says it; nothing of it for others."""
    if settings.unmasking.strategy is not Strategy.JOINT_THRESHOLD or blocks is None:
        return settings.model_copy(update={"edit_threshold": None, "max_post_edit_steps": None})
    edits, steps = settings.edit_threshold, settings.max_post_edit_steps
    family = blocks.edit_threshold, blocks.max_post_edit_steps
    changes = {
        "edit_threshold": _first(edits, family[0], EDIT_THRESHOLD),
        "max_post_edit_steps": _first(steps, family[1], MOST_POST_EDIT_STEPS),
    }
    return settings.model_copy(update=changes)


def misfit(
    given: Mapping[str, Any], settings: DiffusionSettings, blocks: BlockCausalInfo | None
) -> tuple[str, str] | None:
    """The first field of ``diffusion`` that means nothing to the model, and why; ``given`` are those that a
    request names, ``settings`` all of them."""
    asked = {name for name, value in given.items() if value is not None}
    is_joint = settings.unmasking.strategy is Strategy.JOINT_THRESHOLD
    if blocks is None:
        for name in _EXACT_ONLY:
            if name in asked:
                return name, "it is for block-causal models, and this one is bidirectional"
        if is_joint:
            return (
                "unmasking.strategy",
                "joint_threshold is for block-causal models, this one is bidirectional",
            )
        if "refresh_window" in asked and settings.prompt_refresh_interval == 1:
            return "refresh_window", "refreshes recompute everything while prompt_refresh_interval is 1"
        return None
    for name in _APPROXIMATE_ONLY:
        if name in asked:
            return name, "this model's K/V are exact: nothing is left out or refreshed"
    if settings.block_length != blocks.block_length:
        return "block_length", f"this model's blocks are {blocks.block_length} tokens long"
    if blocks.sub_block_length is None and "sub_block_length" in asked:
        return "sub_block_length", "this model's blocks have no sub-blocks"
    if settings.sub_block_length is not None and blocks.block_length % settings.sub_block_length:
        return "sub_block_length", f"it does not divide the block's {blocks.block_length} tokens"
    if is_joint and blocks.sub_block_length is not None:
        return "unmasking.strategy", "joint_threshold is for models without sub-blocks"
    for name in ("edit_threshold", "max_post_edit_steps"):
        if name in asked and not is_joint:
            return name, "it belongs to the strategy joint_threshold"
    return None


def _first(*values: float | None) -> float | None:
    """That is said."""
    return next((value for value in values if value is not None), None)
