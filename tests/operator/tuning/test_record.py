"""What a status keeps of a pool's tuning."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from dllm_operator.api.status import LastChange, PoolTuningStatus
from dllm_operator.tuning.record import Memory, PoolTuning, parse_tuning
from dllm_operator.tuning.setting import Setting
from dllm_operator.tuning.speed import StepSums
from dllm_operator.tuning.state import Trial, TuningState
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
START = Setting(4096, 64, 2048, 0.5, 1 << 30)
numbers = st.floats(0, 1e12)
settings_ = st.builds(
    Setting,
    st.integers(1, 1 << 17),
    st.integers(1, 4096),
    st.integers(1, 1 << 15),
    st.floats(0.01, 1),
    st.integers(0, 1 << 40),
)
states = st.builds(
    TuningState,
    settings_,
    settings_,
    generation=st.integers(0, 1000),
    sums=st.builds(StepSums, numbers, numbers, numbers, numbers, numbers),
    bytes_per_token=numbers,
    other_bytes=st.lists(st.integers(0, 1 << 36), max_size=6).map(tuple),
    base_other_bytes=st.none() | st.integers(0, 1 << 36),
    ceiling_tokens=st.none() | st.integers(1, 1 << 17),
    trial=st.none() | st.builds(Trial, numbers, st.none() | numbers),
    fallback=st.none() | settings_,
)


@given(states)
def test_what_is_written_is_read_back(state: TuningState) -> None:
    change = LastChange(reason="ModelStep", message="up", time=NOW)
    tuning = PoolTuning(
        Memory("key", state, START, last_end="2026-01-01T00:00:00Z", max_model_len=4096),
        "ModelStep",
        "message",
        ("note",),
        device_bytes=100,
        peak_bytes=60,
        out_of_memory=2,
        running=START,
        last_change=change,
        looked_at=NOW,
    )

    written = json.loads(json.dumps(tuning.status().manifest()))

    assert parse_tuning(written) == tuning


@pytest.mark.parametrize("memory", ["", "{}", '{"key": 1}', "no JSON", '{"key":"k","state":null}'])
def test_what_the_tuner_did_not_write_is_no_tuning(memory: str) -> None:
    written = PoolTuning(Memory("key", TuningState(START, START), START)).status().manifest()

    assert parse_tuning(written | {"memory": memory}) is None


def test_no_status_is_no_tuning() -> None:
    assert parse_tuning(None) is None
    assert parse_tuning({}) is None


def test_a_long_story_fits_the_crd() -> None:
    tuning = PoolTuning(
        Memory("key", TuningState(START, START), START), notes=tuple("x" * 999 for _ in range(50))
    )

    status = tuning.status()

    assert len(status.notes) == 8
    assert max(map(len, status.notes)) == 256
    assert PoolTuningStatus.model_validate(status.manifest()) == status


def test_what_was_learned_is_told_in_units_that_people_read() -> None:
    sums = StepSums()
    for tokens in (100.0, 1000.0, 2000.0) * 10:
        seconds = 0.005 + tokens / 50_000
        sums += StepSums(1, tokens, seconds, tokens * seconds, tokens**2)
    state = replace(TuningState(START, START), sums=sums, bytes_per_token=400_000.4, other_bytes=(5, 9, 7))

    learned = PoolTuning(Memory("key", state, START)).status().learned

    assert learned.bytes_per_token == 400_000
    assert learned.step_floor_microseconds == pytest.approx(5000, abs=1)
    assert learned.tokens_per_second == pytest.approx(50_000, abs=2)
    assert learned.other_bytes == 9
