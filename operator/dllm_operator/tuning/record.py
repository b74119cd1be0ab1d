"""What is known and set of one pool: what its status says and what survives the operator. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from dllm_operator.api.status import LastChange, LearnedValues, PoolTuningStatus, TunedSettings
from dllm_operator.tuning.decision import Reason
from dllm_operator.tuning.setting import Setting
from dllm_operator.tuning.speed import fit_speed
from dllm_operator.tuning.state import SETTLE_WINDOWS, TuningState

MAX_NOTES = 8
MAX_NOTE = 256


@dataclass(frozen=True, slots=True)
class Memory:
    """What the tuner needs to go on. ``key`` says for which GPU type, model and engine it is true,
    ``specified`` is what the specification asks for; zero is not known yet. ``last_end`` is the time of the
    newest end by memory that was counted; ``applying`` counts looks in a row at which pods had not taken over
    the newest generation."""

    key: str
    state: TuningState
    specified: Setting
    bytes_per_row: float = 0.0
    page_bytes: int = 0
    max_model_len: int = 0
    last_end: str = ""
    applying: int = 0


MEMORY = TypeAdapter(Memory)


@dataclass(frozen=True, slots=True)
class PoolTuning:
    """``memory`` and what people read. ``proposal`` is what mode Observe would change; ``running`` what the
    pods said last that they run with, which may not be what they are told yet."""

    memory: Memory
    reason: str = Reason.NO_READINGS
    message: str = "no look yet"
    notes: tuple[str, ...] = ()
    proposal: str = ""
    running: Setting | None = None
    device_bytes: int = 0
    peak_bytes: int = 0
    out_of_memory: int = 0
    host_out_of_memory: int = 0
    last_change: LastChange | None = None
    looked_at: datetime | None = None
    edited_at: datetime | None = None

    @property
    def state(self) -> TuningState:
        return self.memory.state

    def status(self) -> PoolTuningStatus:
        state = self.state
        return PoolTuningStatus(
            generation=state.generation,
            settings=_settings(self.running or state.setting),
            converged=state.is_converged,
            reason=self.reason,
            message=self.message,
            notes=tuple(note[:MAX_NOTE] for note in self.notes[:MAX_NOTES]),
            proposal=self.proposal or None,
            observed_peak_bytes=self.peak_bytes,
            headroom_bytes=max(self.device_bytes - self.peak_bytes, 0),
            out_of_memory=self.out_of_memory,
            host_out_of_memory=self.host_out_of_memory,
            last_change=self.last_change,
            looked_at=self.looked_at,
            edited_at=self.edited_at,
            learned=_learned(self.memory),
            memory=MEMORY.dump_json(self.memory).decode(),
        )


def parse_tuning(status: object) -> PoolTuning | None:
    """From ``status.pools[].tuning`` as the API server has it; None where it is not what ``status`` wrote."""
    try:
        found = PoolTuningStatus.model_validate(status)
        memory = MEMORY.validate_json(found.memory)
    except ValidationError:
        return None
    return PoolTuning(
        memory=memory,
        reason=found.reason,
        message=found.message,
        notes=found.notes,
        proposal=found.proposal or "",
        running=_setting(found.settings),
        device_bytes=found.observed_peak_bytes + found.headroom_bytes,
        peak_bytes=found.observed_peak_bytes,
        out_of_memory=found.out_of_memory,
        host_out_of_memory=found.host_out_of_memory,
        last_change=found.last_change,
        looked_at=found.looked_at,
        edited_at=found.edited_at,
    )


def remembered(state: TuningState, setting: Setting, generation: int) -> TuningState:
    """A start from what another pool of the same key learned: its best setting, and what it knows of memory
    and speed; nothing of its windows. What pods do first, when all their requests refresh, says little."""
    return TuningState(
        setting=setting,
        started=setting,
        generation=generation,
        sums=state.sums,
        bytes_per_token=state.bytes_per_token,
        tokens_per_request=state.tokens_per_request,
        pages_per_request=state.pages_per_request,
        rows_per_request=state.rows_per_request,
        usable_share=state.usable_share,
        ceiling_tokens=state.ceiling_tokens,
        ceiling_pool_bytes=state.ceiling_pool_bytes,
        settling=SETTLE_WINDOWS,
        restart_generation=generation,
    )


def distrusted(state: TuningState) -> TuningState:
    """For another version of the engine: speed is measured anew, memory is taken to be used more freely, and
    nothing is known to fail."""
    lower = replace(
        state.setting, max_num_batched_tokens=max(int(state.setting.max_num_batched_tokens * 0.8), 1)
    )
    return replace(
        state,
        setting=lower,
        sums=TuningState(lower, lower).sums,
        bytes_per_token=state.bytes_per_token * 1.1,
        ceiling_tokens=None,
    )


def _settings(setting: Setting) -> TunedSettings:
    return TunedSettings(
        max_num_batched_tokens=setting.max_num_batched_tokens,
        max_num_seqs=setting.max_num_seqs,
        max_num_logits=setting.max_num_logits,
        refresh_share=round(setting.refresh_share, 4),
        kv_pool_bytes=setting.kv_pool_bytes or None,
    )


def _setting(written: TunedSettings) -> Setting:
    return Setting(
        written.max_num_batched_tokens,
        written.max_num_seqs,
        written.max_num_logits,
        written.refresh_share,
        written.kv_pool_bytes or 0,
    )


def _learned(memory: Memory) -> LearnedValues:
    state = memory.state
    speed = fit_speed(state.sums)
    return LearnedValues(
        bytes_per_token=round(state.bytes_per_token) or None,
        other_bytes=max(state.other_bytes, default=0) or None,
        step_floor_microseconds=round(speed.floor_seconds * 1e6) if speed else None,
        tokens_per_second=round(speed.tokens_per_second) if speed else None,
        ceiling_tokens=state.ceiling_tokens,
    )
