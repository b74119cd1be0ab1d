"""Whether the model still computes numbers: one request that does not may be the fault of its prompt, several
in a row are the fault of the weights or the device."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)

MOST_IN_A_ROW = 3


@dataclass(slots=True)
class Soundness:
    """Counts requests that failed because a probability was no number. One that ends well shows that the
    model is sound (again), whatever came before it."""

    not_finite: int = 0
    in_a_row: int = 0

    @property
    def is_sound(self) -> bool:
        return self.in_a_row < MOST_IN_A_ROW

    def note_finished(self) -> None:
        """A request ended well."""
        was_sound, self.in_a_row = self.is_sound, 0
        if not was_sound:
            log.info("a request came out finite: the model is sound again")

    def note_not_finite(self) -> None:
        """A request failed."""
        self.not_finite += 1
        self.in_a_row += 1
        if self.in_a_row == MOST_IN_A_ROW:
            log.error(
                "requests in a row came out as no numbers: restart the server, and if they do again, replace "
                "the checkpoint",
                in_a_row=self.in_a_row,
            )
