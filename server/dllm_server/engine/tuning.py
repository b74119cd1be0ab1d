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

    ``start`` are the settings the engine began with: what the file does not name goes back to them. More
    tokens and logits may take ``spare_bytes`` at ``token_bytes`` and ``row_bytes`` each; a file that asks for
    more, or for more than ``max_seqs``, is refused.
    """

    path: Path
    start: LiveSettings
    max_seqs: int
    spare_bytes: int
    token_bytes: int
    row_bytes: int
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
        more_tokens = max(live.max_num_batched_tokens - self.start.max_num_batched_tokens, 0)
        more_rows = max(live.max_num_logits - self.start.max_num_logits, 0)
        needed = more_tokens * self.token_bytes + more_rows * self.row_bytes
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
