"""Why the server ended: its exit codes, and the line it leaves in the container's termination log.

Imports neither torch nor the engine, since the operator reads what the server writes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationError

from dllm_server.cause import Cause, Explanation

START_FAILED_EXIT_CODE = 1
USAGE_EXIT_CODE = 2
DEVICE_OUT_OF_MEMORY_EXIT_CODE = 86
FORCED_EXIT_CODE = 130

DEFAULT_LOG = Path("/dev/termination-log")


class TerminationReason(StrEnum):
    START_FAILED = "StartFailed"
    """A setting, a file, a port or the model is wrong."""
    BUDGET_EXCEEDED = "BudgetExceeded"
    """The settings do not fit the device, by calculation, before the memory was asked for."""
    DEVICE_OUT_OF_MEMORY = "DeviceOutOfMemory"
    """The device refused an allocation the engine cannot do without."""
    ENGINE_DIED = "EngineDied"
    """The engine process ended by itself or by a signal."""


@dataclass(frozen=True, slots=True)
class Termination:
    """The end of a server that was not told to stop."""

    reason: TerminationReason
    why: Explanation
    exit_code: int

    @property
    def message(self) -> str:
        return str(self.why)

    @classmethod
    def of_start(cls, reason: TerminationReason, why: Explanation) -> Self:
        """An engine or server that refuses to start."""
        is_out_of_memory = reason is TerminationReason.DEVICE_OUT_OF_MEMORY
        return cls(
            reason, why, DEVICE_OUT_OF_MEMORY_EXIT_CODE if is_out_of_memory else START_FAILED_EXIT_CODE
        )

    @classmethod
    def of_engine(cls, returncode: int, *, is_starting: bool = False) -> Self:
        """An engine process that has ended; ``returncode`` is negative for a signal.

        A server cannot go on without its engine, so an engine that ended with 0 makes a 1.
        """
        if returncode == DEVICE_OUT_OF_MEMORY_EXIT_CODE:
            why = Explanation(Cause.DEVICE_MEMORY)
            return cls(TerminationReason.DEVICE_OUT_OF_MEMORY, why, returncode)
        if returncode < 0:
            cause = Cause.ENGINE_SIGNAL_AT_START if is_starting else Cause.ENGINE_SIGNAL
            why = Explanation(cause, {"signal": -returncode})
            return cls(TerminationReason.ENGINE_DIED, why, 128 - returncode)
        cause = Cause.ENGINE_EXIT_AT_START if is_starting else Cause.ENGINE_EXIT
        why = Explanation(cause, {"code": returncode})
        return cls(TerminationReason.ENGINE_DIED, why, returncode or START_FAILED_EXIT_CODE)

    @classmethod
    def parse(cls, text: str) -> Termination | None:
        """What ``to_json`` wrote, or None for any other text, whoever wrote it. The message is not read: a
        cause that is not known here becomes the most general one of its reason."""
        try:
            line = _Line.model_validate_json(text)
        except ValidationError:
            return None
        why = Explanation.read(line.cause, line.numbers, line.setting)
        return cls(line.reason, why or Explanation(_GENERAL[line.reason]), line.exit_code)

    def to_json(self) -> str:
        """One line of JSON; its message is for people who look at the pod."""
        line = _Line(
            reason=self.reason,
            cause=self.why.cause,
            numbers=dict(self.why.numbers),
            setting=self.why.setting,
            message=self.message,
            exit_code=self.exit_code,
        )
        return line.model_dump_json(exclude_none=True)

    def write(self, path: Path | None) -> None:
        """Leave the line at ``path``. A log that cannot be written stays as it is: stderr says the same."""
        if path is not None:
            with contextlib.suppress(OSError):
                path.write_text(f"{self.to_json()}\n", encoding="utf-8")


_GENERAL = {
    TerminationReason.START_FAILED: Cause.START,
    TerminationReason.BUDGET_EXCEEDED: Cause.BUDGET,
    TerminationReason.DEVICE_OUT_OF_MEMORY: Cause.DEVICE_MEMORY,
    TerminationReason.ENGINE_DIED: Cause.ENGINE,
}


class _Line(BaseModel):
    """As it is written; anything may stand there in what is read."""

    reason: TerminationReason
    cause: Any = None
    numbers: Any = None
    setting: Any = None
    message: Any = None
    exit_code: Annotated[int, Field(ge=0, le=255)]


def termination_log(environment: Mapping[str, str] = os.environ) -> Path | None:
    """``DLLM_TERMINATION_LOG``, else the container's own file where there is one."""
    named = environment.get("DLLM_TERMINATION_LOG")
    if named:
        return Path(named)
    return DEFAULT_LOG if DEFAULT_LOG.is_file() else None
