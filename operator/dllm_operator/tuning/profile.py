"""What was learned about a GPU type, for the next resource of the same key. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dllm_operator.tuning.record import Memory, PoolTuning, distrusted, remembered
from dllm_operator.tuning.setting import Setting
from dllm_operator.tuning.state import TuningState

MOST_PROFILES = 256  # a ConfigMap holds one MiB
NOTEWORTHY = 0.05  # bytes a token that moved less are no news


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """What settings are true for. ``engine`` is the specification's block of the pool, as sorted JSON:
    lengths, dtype and retention change what a token costs. ``memory`` is a CPU pod's limit."""

    product: str
    memory: str
    model: str
    revision: str
    gpus: int
    engine: str
    image: str

    @property
    def digest(self) -> str:
        return _digest(asdict(self))

    @property
    def family(self) -> str:
        """The same for every version of the engine."""
        return _digest(asdict(self) | {"image": ""})


@dataclass(frozen=True, slots=True)
class Profile:
    """``key`` and ``family`` are digests; ``about`` is for people."""

    key: str
    family: str
    about: str
    memory: Memory
    updated: datetime


PROFILE = TypeAdapter(Profile)


def parse_profiles(data: Mapping[str, str]) -> dict[str, Profile]:
    """By key; entries that are no profiles are left out."""
    found = {}
    for text in data.values():
        try:
            profile = PROFILE.validate_json(text)
        except ValidationError:
            continue
        found[profile.key] = profile
    return found


def dump_profiles(profiles: Mapping[str, Profile]) -> dict[str, str]:
    """The newest, as a ConfigMap's data."""
    newest = sorted(profiles.values(), key=lambda profile: profile.updated, reverse=True)[:MOST_PROFILES]
    return {f"{profile.key}.json": PROFILE.dump_json(profile).decode() for profile in newest}


def first_tuning(
    key: ProfileKey, setting: Setting, profiles: Mapping[str, Profile], generation: int
) -> PoolTuning:
    """Of a pool that has none yet: from its key's profile, from another engine version's at reduced trust, or
    from the specification's ``setting``. ``generation`` is the newest that pods of the name have seen."""
    known = profiles.get(key.digest)
    if known is not None:
        return _from(known, known.memory.state, key.digest, setting, generation, "learned profile")
    relatives = [profile for profile in profiles.values() if profile.family == key.family]
    if relatives:
        newest = max(relatives, key=lambda profile: profile.updated)
        what = "learned profile of another engine version, trusted less"
        return _from(newest, distrusted(newest.memory.state), key.digest, setting, generation, what)
    return PoolTuning(Memory(key.digest, TuningState(setting, setting, generation=generation), setting))


def respecified(tuning: PoolTuning, setting: Setting) -> PoolTuning:
    """After an edit of the specification's own budgets: those are in force, what was learned stays."""
    state = tuning.state
    fresh = replace(remembered(state, setting, state.generation + 1), restart_generation=0)
    memory = replace(tuning.memory, state=fresh, specified=setting)
    return replace(tuning, memory=memory, message="the specification's budgets were edited")


def is_news(profile: Profile | None, tuning: PoolTuning) -> bool:
    """Whether others would profit: a setting that proved good, or a level that failed."""
    state = tuning.state
    if profile is None:
        return state.is_converged or state.ceiling_tokens is not None
    known = profile.memory.state
    if state.ceiling_tokens != known.ceiling_tokens:
        return True
    has_moved = abs(state.bytes_per_token - known.bytes_per_token) > NOTEWORTHY * known.bytes_per_token
    return state.is_converged and (state.setting != known.setting or has_moved)


def make_profile(key: ProfileKey, tuning: PoolTuning, now: datetime) -> Profile:
    about = f"{key.product} {key.memory}, {key.model} {key.revision}".strip()
    return Profile(key.digest, key.family, about, tuning.memory, now.astimezone(UTC).replace(microsecond=0))


def _from(
    profile: Profile, state: TuningState, key: str, specified: Setting, generation: int, what: str
) -> PoolTuning:
    known = profile.memory
    memory = Memory(
        key,
        remembered(state, state.setting, generation + 1),
        specified,
        bytes_per_row=known.bytes_per_row,
        page_bytes=known.page_bytes,
        max_model_len=known.max_model_len,
    )
    return PoolTuning(memory, message=f"starts from the {what}: {profile.about}")


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
