"""Live settings from a watched file. Nonsense is refused and the last good settings stay."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import ValidationError

from dllm_server.engine.requests.messages import TuningChange
from dllm_server.settings import LiveSettings, TuningFile

log = structlog.get_logger(__name__)

KEPT_CHANGES = 8


@dataclass(frozen=True, slots=True)
class GrowthLimits:
    """How far live settings may grow above ``start``: more tokens and logits rows may take ``spare_bytes`` at
    ``token_bytes`` and ``row_bytes`` each, and sequences have ``max_seqs`` slots."""

    start: LiveSettings
    max_seqs: int
    spare_bytes: int
    token_bytes: int
    row_bytes: int

    def check(self, live: LiveSettings) -> None:
        """``ValueError`` names the setting that exceeds its limit."""
        needed = self._tokens_bytes(live) + self._rows_bytes(live)
        if needed > self.spare_bytes:
            raise ValueError(
                f"max_num_batched_tokens {live.max_num_batched_tokens} and max_num_logits "
                f"{live.max_num_logits} need {needed} bytes more than at the start, {self.spare_bytes} are "
                "free: lower them"
            )
        if live.max_num_seqs > self.max_seqs:
            raise ValueError(
                f"max_num_seqs {live.max_num_seqs} exceeds {self.max_seqs}, which the engine started with"
            )

    def ceilings(self, live: LiveSettings) -> dict[str, int]:
        """The most each setting can be while the others stay as in ``live``."""
        for_tokens = self.spare_bytes - self._rows_bytes(live)
        for_rows = self.spare_bytes - self._tokens_bytes(live)
        return {
            "max_num_batched_tokens": self.start.max_num_batched_tokens + for_tokens // self.token_bytes,
            "max_num_seqs": self.max_seqs,
            "max_num_logits": self.start.max_num_logits + for_rows // self.row_bytes,
        }

    def _tokens_bytes(self, live: LiveSettings) -> int:
        return max(live.max_num_batched_tokens - self.start.max_num_batched_tokens, 0) * self.token_bytes

    def _rows_bytes(self, live: LiveSettings) -> int:
        return max(live.max_num_logits - self.start.max_num_logits, 0) * self.row_bytes


@dataclass(slots=True)
class TuningWatch:
    """Reads the file when its content changes, whether it was written, renamed or swapped behind a link.

    What the file does not name goes back to the settings at the start. A file beyond ``limits``, or whose
    checksum is wrong, is refused: it counts in ``errors`` and ``is_refused`` holds until a good one. The last
    ``changes`` are kept, oldest first.
    """

    path: Path
    limits: GrowthLimits
    generation: int = 0
    errors: int = 0
    is_refused: bool = False
    unix_clock: Callable[[], float] = time.time
    changes: deque[TuningChange] = field(default_factory=lambda: deque(maxlen=KEPT_CHANGES))
    _seen: bytes = field(default=b"")
    _live: LiveSettings = field(init=False)

    def __post_init__(self) -> None:
        self._live = self.limits.start

    def poll(self) -> LiveSettings | None:
        """New settings to apply, or None."""
        try:
            content = self.path.read_bytes()
        except OSError:  # not mounted yet, or being replaced: the next poll sees it
            return None
        if content == self._seen:
            return None
        self._seen = content
        try:
            file = TuningFile.model_validate_json(content)
            live = file.apply_to(self.limits.start)
            self.limits.check(live)
        except ValueError as error:
            self.errors += 1
            self.is_refused = True
            reason = _reason(error)
            log.error("tuning file refused, the last good settings stay", path=str(self.path), error=reason)
            return None
        self.generation, self.is_refused = file.generation, False
        self.changes.append(TuningChange(file.generation, self.unix_clock(), changed(self._live, live)))
        self._live = live
        log.info("tuning applied", generation=file.generation, settings=live.model_dump())
        return live


def changed(before: LiveSettings, after: LiveSettings) -> dict[str, tuple[float, float]]:
    """The settings that differ, with both values."""
    new = after.model_dump()
    return {name: (old, new[name]) for name, old in before.model_dump().items() if old != new[name]}


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        ": ".join(part for part in (".".join(map(str, problem["loc"])), problem["msg"]) if part)
        for problem in error.errors()
    )
