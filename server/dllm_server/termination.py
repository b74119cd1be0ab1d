"""Why the server ended: its exit codes, and the line it leaves in the container's termination log.

Imports neither torch nor the engine, since the operator reads what the server writes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter, ValidationError

START_FAILED_EXIT_CODE = 1
USAGE_EXIT_CODE = 2
DEVICE_OUT_OF_MEMORY_EXIT_CODE = 86
FORCED_EXIT_CODE = 130

MAX_MESSAGE_CHARACTERS = 1000  # of at most four bytes; Kubernetes keeps 4,096 bytes of a termination log
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
    message: str
    exit_code: int

    @classmethod
    def of_start(cls, reason: TerminationReason, message: str) -> Self:
        """An engine or server that refuses to start."""
        is_out_of_memory = reason is TerminationReason.DEVICE_OUT_OF_MEMORY
        return cls(
            reason, message, DEVICE_OUT_OF_MEMORY_EXIT_CODE if is_out_of_memory else START_FAILED_EXIT_CODE
        )

    @classmethod
    def of_engine(cls, returncode: int, moment: str = "") -> Self:
        """An engine process that has ended; ``returncode`` is negative for a signal.

        A server cannot go on without its engine, so an engine that ended with 0 makes a 1.
        """
        if returncode == DEVICE_OUT_OF_MEMORY_EXIT_CODE:
            message = "the device ran out of memory outside of what the engine can contain; the log has more"
            return cls(TerminationReason.DEVICE_OUT_OF_MEMORY, message, returncode)
        how = f"was ended by signal {-returncode}" if returncode < 0 else f"ended with exit code {returncode}"
        code = 128 - returncode if returncode < 0 else returncode or START_FAILED_EXIT_CODE
        return cls(TerminationReason.ENGINE_DIED, f"the engine process {how}{moment}", code)

    @classmethod
    def parse(cls, text: str) -> Termination | None:
        """What ``to_json`` wrote, or None for any other text (Kubernetes may put the log there)."""
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError:
            return None

    def to_json(self) -> str:
        """One line of JSON, without a line break, that fits a termination log whatever the message holds."""
        printable = "".join(
            character if character.isprintable() else "?" for character in " ".join(self.message.split())
        )
        return json.dumps(asdict(self) | {"message": printable[:MAX_MESSAGE_CHARACTERS]}, ensure_ascii=False)

    def write(self, path: Path | None) -> None:
        """Leave the line at ``path``. A log that cannot be written stays as it is: stderr says the same."""
        if path is not None:
            with contextlib.suppress(OSError):
                path.write_text(f"{self.to_json()}\n", encoding="utf-8")


_ADAPTER = TypeAdapter(Termination)


def termination_log(environment: Mapping[str, str] = os.environ) -> Path | None:
    """``DLLM_TERMINATION_LOG``, else the container's own file where there is one."""
    named = environment.get("DLLM_TERMINATION_LOG")
    if named:
        return Path(named)
    return DEFAULT_LOG if DEFAULT_LOG.is_file() else None
