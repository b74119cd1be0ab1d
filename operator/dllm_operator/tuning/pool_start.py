"""What a pool's engines start with: by the specification, and as tuned. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dllm_server.settings import LEAST_MEMORY_BYTES, EngineSettings, LiveSettings

from dllm_operator.tuning.profile import Profile, ProfileKey, first_tuning, respecified
from dllm_operator.tuning.record import PoolTuning
from dllm_operator.tuning.setting import Setting

_TUNED = frozenset(LiveSettings.model_fields) | {"kv_pool_bytes"}


def specified_setting(engine: Mapping[str, Any]) -> Setting:
    """Of an engine block, with the server's defaults; pages of 0 bytes take what is left."""
    settings = EngineSettings.model_validate(dict(engine))
    return Setting(
        settings.max_num_batched_tokens,
        settings.max_num_seqs,
        settings.max_num_logits,
        settings.refresh_share,
        int(settings.kv_pool_bytes or 0),
    )


def start_share(engine: Mapping[str, Any]) -> float:
    """Of the device, that an engine of this block divides when it starts."""
    return EngineSettings.model_validate(dict(engine)).gpu_memory_utilization


def lasting_settings(engine: Mapping[str, Any]) -> str:
    """Those that no tuner changes, as one text."""
    return json.dumps({name: value for name, value in engine.items() if name not in _TUNED}, sort_keys=True)


def pool_tuning(
    tuning: PoolTuning | None, key: ProfileKey, engine: Mapping[str, Any], profiles: Mapping[str, Profile]
) -> PoolTuning:
    """The pool's tuning, begun anew where the specification has made another pool of it."""
    setting = specified_setting(engine)
    if tuning is None:
        return first_tuning(key, setting, profiles, generation=0)
    if tuning.memory.key != key.digest:
        return first_tuning(key, setting, profiles, generation=tuning.state.generation + 1)
    return tuning if tuning.memory.specified == setting else respecified(tuning, setting)


def start_settings(tuning: PoolTuning) -> dict[str, int]:
    """What a restart or a learned profile has put in the place of the engine block's. The length served is
    pinned, since it would follow the token budget, and no engine starts with a budget below it: the tuning
    file lowers that later."""
    state, started = tuning.state, tuning.state.started
    if state.restart_generation == 0:
        return {}
    values = {
        "max_num_batched_tokens": max(started.max_num_batched_tokens, tuning.memory.max_model_len),
        "max_num_seqs": started.max_num_seqs,
        "max_num_logits": started.max_num_logits,
        "kv_pool_bytes": started.kv_pool_bytes and max(started.kv_pool_bytes, LEAST_MEMORY_BYTES),
        "max_model_len": tuning.memory.max_model_len,
    }
    return {name: value for name, value in values.items() if value}


def live_settings(tuning: PoolTuning) -> dict[str, int | float]:
    """What engines take over while they serve; nothing before the first change."""
    state, setting = tuning.state, tuning.state.setting
    if state.generation == 0:
        return {}
    return {
        "max_num_batched_tokens": setting.max_num_batched_tokens,
        "max_num_seqs": setting.max_num_seqs,
        "max_num_logits": setting.max_num_logits,
        "refresh_share": round(setting.refresh_share, 6),
    }
