"""What the next resource of the same key starts with."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from dllm_operator.cluster.profile_store import ProfileStore
from dllm_operator.tuning.pool_start import lasting_settings, live_settings, pool_tuning, start_settings
from dllm_operator.tuning.profile import (
    MOST_PROFILES,
    Profile,
    ProfileKey,
    dump_profiles,
    first_tuning,
    is_news,
    make_profile,
    parse_profiles,
)
from dllm_operator.tuning.record import Memory, PoolTuning
from dllm_operator.tuning.setting import Setting
from dllm_operator.tuning.state import CALM_WINDOWS, TuningState
from dllm_server.settings import LEAST_MEMORY_BYTES, EngineSettings

from tests.operator.objects import FakeKube

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ProfileKey("NVIDIA-L40S", "46068Mi", "org/model", "main", 1, "{}", "server:1")
START = Setting(4096, 64, 2048, 0.5, 0)
BEST = Setting(1500, 90, 1024, 0.4, 7 << 30)


def learned(setting: Setting = BEST, **state: object) -> PoolTuning:
    found = TuningState(setting, START, generation=5, bytes_per_token=4e5, calm=CALM_WINDOWS)
    memory = Memory(KEY.digest, replace(found, **state), START, max_model_len=4096, page_bytes=1 << 20)
    return PoolTuning(memory)


def profile(tuning: PoolTuning | None = None, key: ProfileKey = KEY) -> dict[str, Profile]:
    return {key.digest: make_profile(key, tuning or learned(), NOW)}


def test_nothing_is_known_of_a_first_key() -> None:
    tuning = first_tuning(KEY, START, {}, 0)

    assert tuning.state == TuningState(START, START)
    assert start_settings(tuning) == {}
    assert live_settings(tuning) == {}


def test_a_known_key_starts_from_what_was_learned() -> None:
    tuning = first_tuning(KEY, START, profile(), 0)

    assert tuning.state.setting == BEST
    assert (tuning.state.generation, tuning.state.bytes_per_token) == (1, 4e5)
    assert start_settings(tuning) == {
        "max_num_batched_tokens": 4096,  # the length served; the file says 1500
        "max_num_seqs": 90,
        "max_num_logits": 1024,
        "kv_pool_bytes": 7 << 30,
        "max_model_len": 4096,
    }
    assert live_settings(tuning)["refresh_share"] == 0.4
    assert live_settings(tuning)["max_num_batched_tokens"] == 1500


def test_a_pool_that_holds_next_to_nothing_starts_with_a_size_that_the_server_takes() -> None:
    tiny = profile(learned(replace(BEST, kv_pool_bytes=4_000)))

    start = start_settings(first_tuning(KEY, START, tiny, 0))

    assert EngineSettings.model_validate(start).kv_pool_bytes == LEAST_MEMORY_BYTES


def test_another_version_of_the_engine_is_trusted_less() -> None:
    tuning = first_tuning(replace(KEY, image="server:2"), START, profile(learned(ceiling_tokens=3000)), 0)

    assert tuning.state.setting.max_num_batched_tokens == 1200
    assert tuning.state.bytes_per_token == pytest.approx(4.4e5)
    assert tuning.state.ceiling_tokens is None


@pytest.mark.parametrize(
    "change",
    [
        {"product": "NVIDIA-A10G"},
        {"memory": "1Mi"},
        {"model": "org/other"},
        {"revision": "v2"},
        {"gpus": 2},
        {"engine": '{"dtype": "float32"}'},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_key_knows_nothing(change: dict[str, object]) -> None:
    assert first_tuning(replace(KEY, **change), START, profile(), 0).state.setting == START


def test_budgets_are_no_part_of_a_key_and_what_changes_their_cost_is() -> None:
    plain = {"max_num_batched_tokens": 1, "kv_pool_bytes": "1GiB", "refresh_share": 0.2}

    assert lasting_settings(plain) == "{}"
    assert lasting_settings(plain | {"retention_ratio": 0.5}) == '{"retention_ratio": 0.5}'


def test_an_edit_of_the_budgets_is_followed_and_what_was_learned_stays() -> None:
    tuning = pool_tuning(learned(), KEY, {"max_num_batched_tokens": 900}, {})

    assert tuning.state.setting.max_num_batched_tokens == 900
    assert (tuning.state.generation, tuning.state.bytes_per_token) == (6, 4e5)
    assert start_settings(tuning) == {}
    assert pool_tuning(tuning, KEY, {"max_num_batched_tokens": 900}, {}) is tuning


def test_another_model_begins_anew_with_a_generation_that_no_pod_has_seen() -> None:
    tuning = pool_tuning(learned(), replace(KEY, model="org/other"), {}, {})

    assert tuning.state == TuningState(START, START, generation=6)


@pytest.mark.parametrize(
    ("known", "now", "expected"),
    [
        (None, learned(calm=0), False),
        (None, learned(), True),
        (None, learned(calm=0, ceiling_tokens=4000), True),
        (learned(), learned(), False),
        (learned(), learned(bytes_per_token=4.1e5), False),
        (learned(), learned(bytes_per_token=5e5), True),
        (learned(), learned(replace(BEST, max_num_seqs=1)), True),
        (learned(), learned(replace(BEST, max_num_seqs=1), calm=0), False),
        (learned(), learned(ceiling_tokens=9, calm=0), True),
    ],
)
def test_only_news_is_kept(known: PoolTuning | None, now: PoolTuning, expected: bool) -> None:
    assert is_news(make_profile(KEY, known, NOW) if known else None, now) is expected


def test_profiles_survive_the_config_map_and_strangers_in_it() -> None:
    known = profile()

    assert parse_profiles(dump_profiles(known) | {"note.txt": "hello", "x.json": "{}"}) == known


def test_the_config_map_keeps_the_newest() -> None:
    many = {}
    for number in range(MOST_PROFILES + 5):
        key = replace(KEY, product=f"gpu-{number}")
        many[key.digest] = make_profile(key, learned(), NOW + timedelta(seconds=number))

    kept = parse_profiles(dump_profiles(many))

    assert len(kept) == MOST_PROFILES
    assert all(one.updated >= NOW + timedelta(seconds=5) for one in kept.values())
    assert sum(map(len, dump_profiles(many).values())) < 1024**2


def test_a_store_writes_news_once_and_reads_it_back() -> None:
    kube = FakeKube()
    store = ProfileStore(kube, "dllm-system", "profiles")  # type: ignore[arg-type]

    async def learn_twice() -> None:
        await store.load()
        await store.learn(KEY, learned(), NOW)
        await store.learn(KEY, learned(), NOW)

    asyncio.run(learn_twice())
    again = ProfileStore(kube, "dllm-system", "profiles")  # type: ignore[arg-type]
    asyncio.run(again.load())

    assert kube.calls == [("apply as dllm-operator-profiles", "ConfigMap", "profiles")]
    assert again.known == store.known == profile()
