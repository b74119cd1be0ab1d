"""Live settings from a watched file. Nonsense is refused and the last good settings stay."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import ValidationError

from dllm_server.settings import LiveSettings, TuningFile

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class TuningWatch:
    """Reads the file when its content changes.

    ``start`` are the settings the engine began with: what the file does not name goes back to them.
    ``max_tokens`` and ``max_seqs`` are what the device was budgeted for; a file that asks for more is
    refused.
    """

    path: Path
    start: LiveSettings
    max_tokens: int
    max_seqs: int
    generation: int = 0
    errors: int = 0
    _seen: bytes = field(default=b"")

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
            live = file.apply_to(self.start)
            self._check(live)
        except (ValidationError, ValueError) as error:
            self.errors += 1
            log.error(
                "tuning file refused, the last good settings stay", path=str(self.path), error=str(error)
            )
            return None
        self.generation = file.generation
        log.info("tuning applied", generation=file.generation, settings=live.model_dump())
        return live

    def _check(self, live: LiveSettings) -> None:
        if live.max_num_batched_tokens > self.max_tokens:
            raise ValueError(
                f"max_num_batched_tokens {live.max_num_batched_tokens} exceeds {self.max_tokens}, "
                "which memory was planned for"
            )
        if live.max_num_seqs > self.max_seqs:
            raise ValueError(
                f"max_num_seqs {live.max_num_seqs} exceeds {self.max_seqs}, which the engine started with"
            )
