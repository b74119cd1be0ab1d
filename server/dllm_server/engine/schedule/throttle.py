"""The token budget after out-of-memory errors."""

from __future__ import annotations

from dataclasses import dataclass

OOM_RECOVERY_STEPS = 512


@dataclass(slots=True)
class Throttle:
    """The token budget after out-of-memory events: halved at once, doubled after ``OOM_RECOVERY_STEPS``
    quiet steps. A step that cannot be made smaller is tried twice."""

    tokens: int | None = None  # None: as configured
    quiet_steps: int = 0
    has_retried: bool = False

    def shrink(self, tokens: int) -> None:
        self.tokens, self.quiet_steps = tokens, 0

    def count_quiet_step(self, configured: int) -> None:
        self.has_retried = False
        if self.tokens is None:
            return
        self.quiet_steps += 1
        if self.quiet_steps >= OOM_RECOVERY_STEPS:
            grown = self.tokens * 2
            self.tokens, self.quiet_steps = (grown if grown < configured else None), 0
