"""What a request's ``diffusion`` object may say, found out by the check that requests pass."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dllm_server.api.answers.plan import Limits, merge_diffusion
from dllm_server.api.schemas.errors import ApiError
from dllm_server.api.schemas.responses import DecodingOptions
from dllm_server.settings import Strategy

_EDITING = {"unmasking": {"strategy": Strategy.JOINT_THRESHOLD}}

# Objects that are refused only where the field means nothing to the model.
_PROBES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "refresh_interval": {"refresh_interval": 1},
        "prompt_refresh_interval": {"prompt_refresh_interval": 2},
        "refresh_window": {"refresh_window": 0, "prompt_refresh_interval": 2},
        "edit_threshold": {"edit_threshold": 0.9, **_EDITING},
        "max_post_edit_steps": {"max_post_edit_steps": 1, **_EDITING},
        "sub_block_length": {"sub_block_length": 1},
    }
)


def decoding_options(limits: Limits, *, has_chat_template: bool) -> DecodingOptions:
    own = limits.diffusion
    most = limits.model.retention_ratio
    other_length = own.block_length * 2 if own.block_length <= 512 else own.block_length // 2
    probes: dict[str, Mapping[str, Any]] = {
        "block_length": {"block_length": other_length},
        "retention_ratio": {"retention_ratio": most},
        **_PROBES,
    }
    refusals = {name: _refusal(probe, limits) for name, probe in probes.items()}
    strategies = {}
    for strategy in Strategy:
        named = {"unmasking": {"strategy": strategy}}
        if _refusal(named, limits) is None:
            strategies[str(strategy)] = merge_diffusion(named, limits).unmasking.value
    return DecodingOptions(
        attention="bidirectional" if limits.model.blocks is None else "block_causal",
        has_chat_template=has_chat_template,
        defaults=own,
        strategies=strategies,
        refused={name: why for name, why in refusals.items() if why is not None},
        most_retention_ratio=most,
    )


def _refusal(given: Mapping[str, Any], limits: Limits) -> str | None:
    try:
        merge_diffusion(dict(given), limits)
    except ApiError as error:
        return str(error)
    return None
