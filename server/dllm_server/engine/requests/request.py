"""A request in the engine and its phase machine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

import numpy as np
from dllm_kernels.layout import IntArray
from numpy.typing import NDArray

from dllm_server.engine.requests.messages import (
    Diffusion,
    Generate,
    RequestStats,
    RequestTimes,
    Sampling,
    Score,
)
from dllm_server.engine.requests.pages import Chunk
from dllm_server.engine.requests.refresh import takes_prompt
from dllm_server.memory import round_up
from dllm_server.settings import Confidence, Strategy
from dllm_server.structure.match import GrammarMatch


class Phase(StrEnum):
    """WAITING has no slot; REFRESH queries the sequence, or what is not prompt, REUSE its block; PREFILL
    writes K/V of tokens that are final, DENOISE queries the block, and the one before it where its K/V are
    not written yet; DRAINING waits for the result of its last step; FINISHED has given everything back."""

    WAITING = "waiting"
    REFRESH = "refresh"
    REUSE = "reuse"
    PREFILL = "prefill"
    DENOISE = "denoise"
    DRAINING = "draining"
    FINISHED = "finished"


_NEXT = {
    Phase.WAITING: {Phase.REFRESH, Phase.PREFILL, Phase.DENOISE, Phase.FINISHED},
    Phase.REFRESH: {Phase.REFRESH, Phase.REUSE, Phase.DRAINING, Phase.FINISHED},
    Phase.REUSE: {Phase.REFRESH, Phase.REUSE, Phase.DRAINING, Phase.FINISHED},
    Phase.PREFILL: {Phase.PREFILL, Phase.DENOISE, Phase.WAITING, Phase.DRAINING, Phase.FINISHED},
    Phase.DENOISE: {Phase.PREFILL, Phase.DENOISE, Phase.WAITING, Phase.DRAINING, Phase.FINISHED},
    Phase.DRAINING: {Phase.FINISHED},
    Phase.FINISHED: set[Phase](),
}


@dataclass(frozen=True, slots=True)
class Saved:
    """What a request had committed when it had to give up its slot: the canvas from the prompt's end on, and
    where it was."""

    token_ids: IntArray
    is_masked: NDArray[np.bool_]
    logprobs: NDArray[np.float32]
    block_start: int
    steps: int
    in_block: tuple[int, int]  # steps, and those of them after its last mask was gone


@dataclass(slots=True)
class Request:
    """One ``Generate``, or ``Score``, on its way. Numbers that a step reads for all requests at once live in
    the ``SlotTable``. To ``score`` is to read a text once, as a prompt to which nothing is generated.

    ``pages`` are those of its whole life; its canvas ends on a ``grid`` of blocks. Of exact K/V, ``computed``
    counts the positions whose K/V are final, ``prefix`` names the chunks of the tokens to begin with, and
    ``post_edit_steps`` the steps without a mask in the current block. Not all refreshes recompute the first
    ``fixed`` positions; ``blocks`` have begun.
    """

    message: Generate
    arrived_seconds: float
    pages: int
    score: Score | None = None
    grid: int = 1
    number: int = 0  # in the order of arrival
    phase: Phase = Phase.WAITING
    slot: int = -1
    admitted_seconds: float = 0.0
    last_step: int = field(default=0)  # number of the step that last served it, or of its arrival
    steps_in_block: int = 0
    masks_left: int = 0  # in the current block once all launched steps are done
    forward_passes: int = 0
    refresh_passes: int = 0
    prefill_passes: int = 0
    cached_tokens: int = 0
    alternatives: dict[int, list[tuple[int, float]]] = field(default_factory=dict)  # by committed position
    computed: int = 0
    prefix: list[Chunk] = field(default_factory=list)
    post_edit_steps: int = 0
    saved: Saved | None = None
    match: GrammarMatch | None = None  # of its grammar with what is committed from ``held_from`` on
    held_from: int | None = None  # position where a text of the grammar begins; None while none has
    free_from: int = 0  # behind the last of these that is whole
    guided_tokens: int | None = None  # that its last step chose, where no more than that follows from it
    is_settled: bool = False  # nothing that is committed of the block may change
    fixed: int = 0
    blocks: int = 0
    is_opening: bool = True  # no result of the block to be told next is there
    opened_seconds: float = 0.0
    told_seconds: float = 0.0

    @property
    def request_id(self) -> str:
        return self.message.request_id

    @property
    def sequence_tokens(self) -> int:
        return round_up(self.limit, self.grid)

    @property
    def limit(self) -> int:
        """Behind the last position that is published."""
        return len(self.message.prompt) + self.message.max_tokens

    @property
    def quota(self) -> int | None:
        """Tokens that the next step commits while there are so many masks; None where its outcome tells."""
        if self.message.grammar is not None:
            return self.guided_tokens
        is_fixed = self.message.diffusion.strategy in (Strategy.QUOTA, Strategy.SEQUENTIAL)
        return self.share if is_fixed else None

    @property
    def edits(self) -> bool:
        """Whether tokens of the current block may be replaced until it is done: not where what follows has
        been held to a grammar."""
        return self.message.diffusion.edit_threshold is not None and not self.is_settled

    @property
    def edit_threshold(self) -> float:
        """The confidence above which another token replaces one of the current block."""
        threshold = self.message.diffusion.edit_threshold
        return threshold if threshold is not None and self.edits else math.inf

    def follow(self, match: GrammarMatch) -> None:
        """Its grammar has been compiled."""
        self.match = match
        if self.message.grammar_after is None:
            self.held_from = len(self.message.prompt)

    @property
    def share(self) -> int:
        """Tokens that the next step commits at least: of a block's, evenly over its steps, the rest first."""
        diffusion = self.message.diffusion
        if diffusion.steps_per_block is None:
            return int(diffusion.value) if diffusion.strategy in (Strategy.QUOTA, Strategy.SEQUENTIAL) else 1
        share, rest = divmod(diffusion.block_length, diffusion.steps_per_block)
        return max(share + (self.steps_in_block < rest), 1)

    @classmethod
    def to_score(cls, score: Score, arrived_seconds: float, *, last_step: int) -> Self:
        """Takes no pages: a refresh that no reuse follows."""
        diffusion = Diffusion(1, 1, Strategy.QUOTA, 1.0, Confidence.PROBABILITY, 1.0)
        message = Generate(score.request_id, score.tokens, 0, Sampling(), diffusion)
        return cls(message, arrived_seconds, 0, score, last_step=last_step)

    def start_block(self, start: int, masks: int, phase: Phase) -> None:
        """The next block, at ``start`` and of so many masks, begins with a step of that phase."""
        self.is_settled = self.held_from is not None or self.free_from > start
        self.masks_left, self.steps_in_block = masks, 0
        self.blocks += 1
        self.enter(phase)

    def enter(self, phase: Phase) -> None:
        """The one transition function; an illegal transition raises ``ValueError``."""
        if phase not in _NEXT[self.phase]:
            raise ValueError(f"request {self.request_id} cannot go from {self.phase} to {phase}")
        self.phase = phase

    def count_launch(self, step: int) -> None:
        """Step number ``step`` serves this request."""
        self.last_step = step

    def count_result(self, phase: Phase, now: float) -> None:
        """The result of a step in that phase is there."""
        self.told_seconds = now
        if self.is_opening and phase in (Phase.REFRESH, Phase.PREFILL):
            self.opened_seconds = now
        self.is_opening = self.is_opening and phase is Phase.PREFILL
        self.forward_passes += 1
        self.refresh_passes += phase is Phase.REFRESH
        self.prefill_passes += phase is Phase.PREFILL

    @property
    def takes_prompt(self) -> bool:
        """Whether a refresh in the next step recomputes the prompt too."""
        interval = self.message.diffusion.prompt_refresh_interval
        return takes_prompt(self.fixed, interval, self.blocks - 1, self.steps_in_block)

    def next_phase_in_block(self) -> Phase:
        """Phase of the next step while the block still has masks."""
        interval = self.message.diffusion.refresh_interval
        return Phase.REFRESH if interval is not None and self.steps_in_block % interval == 0 else Phase.REUSE

    def stats(self) -> RequestStats:
        waited = (
            self.admitted_seconds - self.arrived_seconds if self.slot >= 0 or self.forward_passes else 0.0
        )
        return RequestStats(
            self.forward_passes,
            self.refresh_passes,
            max(waited, 0.0),
            self.prefill_passes,
            self.cached_tokens,
            RequestTimes(self.admitted_seconds, self.opened_seconds, self.told_seconds),
        )
