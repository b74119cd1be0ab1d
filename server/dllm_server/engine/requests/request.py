"""A request in the engine and its phase machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from dllm_server.engine.requests.messages import Diffusion, Generate, RequestStats, Sampling, Score
from dllm_server.settings import Confidence, Strategy


class Phase(StrEnum):
    """WAITING has no slot; REFRESH queries the whole sequence, REUSE its block; DRAINING waits for the result
    of its last step; FINISHED has given everything back."""

    WAITING = "waiting"
    REFRESH = "refresh"
    REUSE = "reuse"
    DRAINING = "draining"
    FINISHED = "finished"


_NEXT = {
    Phase.WAITING: {Phase.REFRESH, Phase.FINISHED},
    Phase.REFRESH: {Phase.REFRESH, Phase.REUSE, Phase.DRAINING, Phase.FINISHED},
    Phase.REUSE: {Phase.REFRESH, Phase.REUSE, Phase.DRAINING, Phase.FINISHED},
    Phase.DRAINING: {Phase.FINISHED},
    Phase.FINISHED: set[Phase](),
}


@dataclass(slots=True)
class Request:
    """One ``Generate``, or ``Score``, on its way. Numbers that a step reads for all requests at once live in
    the ``SlotTable``. To ``score`` is to read a text once, as a prompt to which nothing is generated."""

    message: Generate
    arrived_seconds: float
    pages: int
    score: Score | None = None
    phase: Phase = Phase.WAITING
    slot: int = -1
    admitted_seconds: float = 0.0
    last_step: int = field(default=0)  # number of the step that last served it, or of its arrival
    steps_in_block: int = 0
    masks_left: int = 0  # in the current block once all launched steps are done
    forward_passes: int = 0
    refresh_passes: int = 0
    alternatives: dict[int, list[tuple[int, float]]] = field(default_factory=dict)  # by committed position

    @property
    def request_id(self) -> str:
        return self.message.request_id

    @property
    def sequence_tokens(self) -> int:
        return len(self.message.prompt) + self.message.max_tokens

    @property
    def quota(self) -> int | None:
        """Tokens that every step commits while there are so many masks; None where a step's outcome tells."""
        diffusion = self.message.diffusion
        return int(diffusion.value) if diffusion.strategy is Strategy.QUOTA else None

    @classmethod
    def to_score(cls, score: Score, arrived_seconds: float, *, last_step: int) -> Self:
        """Takes no pages: a refresh that no reuse follows."""
        diffusion = Diffusion(1, 1, Strategy.QUOTA, 1.0, Confidence.PROBABILITY, 1.0)
        message = Generate(score.request_id, score.tokens, 0, Sampling(), diffusion)
        return cls(message, arrived_seconds, 0, score, last_step=last_step)

    def start_block(self, tokens: int) -> None:
        """The next block, of ``tokens`` masks, begins with a refresh."""
        self.masks_left, self.steps_in_block = tokens, 0
        self.enter(Phase.REFRESH)

    def enter(self, phase: Phase) -> None:
        """The one transition function; an illegal transition raises ``ValueError``."""
        if phase not in _NEXT[self.phase]:
            raise ValueError(f"request {self.request_id} cannot go from {self.phase} to {phase}")
        self.phase = phase

    def count_launch(self, step: int) -> None:
        """Step number ``step`` serves this request."""
        self.last_step = step
        self.steps_in_block += 1

    def count_result(self, *, is_refresh: bool) -> None:
        """The result of a step is there."""
        self.forward_passes += 1
        self.refresh_passes += is_refresh

    def next_phase_in_block(self) -> Phase:
        """Phase of the next step while the block still has masks."""
        interval = self.message.diffusion.refresh_interval
        return Phase.REFRESH if interval is not None and self.steps_in_block % interval == 0 else Phase.REUSE

    def stats(self) -> RequestStats:
        waited = (
            self.admitted_seconds - self.arrived_seconds if self.slot >= 0 or self.forward_passes else 0.0
        )
        return RequestStats(self.forward_passes, self.refresh_passes, max(waited, 0.0))
