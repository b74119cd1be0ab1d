"""A step between its launch and the reading of its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from dllm_kernels.commit import NOT_FINITE
from dllm_kernels.layout import IntArray
from numpy.typing import NDArray

from dllm_server.engine.accounts.windows import StepRecord
from dllm_server.engine.device.pending_step import NamedTokens, PendingStep
from dllm_server.engine.requests.marked import follow_marker
from dllm_server.engine.requests.messages import Score, Scored
from dllm_server.engine.requests.publish import Shown, shown_blocks
from dllm_server.engine.requests.request import Phase, Request
from dllm_server.engine.requests.slots import SlotTable
from dllm_server.engine.schedule.batch import StepBatch
from dllm_server.engine.schedule.course import Course


@dataclass(frozen=True, slots=True)
class Launched:
    """``requests`` in the batch's order, ``commits`` how many masks of each it fills, None where its outcome
    tells, ``final`` the tokens whose K/V it makes final, and ``phases`` those that they are in.
    ``text_ends`` says behind which position a grammar has let nothing follow, else -1, and ``problems`` why
    one can be followed no further.
    ``forward_seconds`` is the host's time for the forward pass and the head; on a GPU only their launches.
    ``is_predictable``: the phases that follow are known before the result is (a stop token aside)."""

    pending: PendingStep
    batch: StepBatch
    requests: list[Request]
    commits: list[int | None]
    final: list[int]
    phases: list[Phase]
    text_ends: list[int]
    problems: list[str | None]
    budget: int
    started_seconds: float
    forward_seconds: float

    @classmethod
    def of(
        cls,
        pending: PendingStep,
        batch: StepBatch,
        requests: list[Request],
        course: Course,
        budget: int,
        started_seconds: float,
        forward_seconds: float,
    ) -> Self:
        """Their course is told that the step is on its way. What it chooses for those with a grammar is
        known already."""
        text_ends, problems = _follow_grammars(requests, pending.guided_tokens(), course.table)
        commits = [course.commits(request) for request in requests]
        final = [course.launched(request) for request in requests]
        phases = [request.phase for request in requests]
        return cls(
            pending,
            batch,
            requests,
            commits,
            final,
            phases,
            text_ends,
            problems,
            budget,
            started_seconds,
            forward_seconds,
        )

    def record(self, logits_rows: int, committed_tokens: int, *, is_tight: bool) -> StepRecord:
        batch = self.batch
        fill = batch.rows / self.budget
        return StepRecord(batch.rows, batch.requests, logits_rows, committed_tokens, fill, is_tight)

    @property
    def is_predictable(self) -> bool:
        return None not in self.commits


def _follow_grammars(
    requests: Sequence[Request], guided_tokens: Mapping[int, int | None], table: SlotTable
) -> tuple[list[int], list[str | None]]:
    """``text_ends`` and ``problems`` of ``Launched``. The next step goes on behind what this one has chosen
    before its result is read; where the text ends with it, or goes on without the grammar, it waits."""
    text_ends = [-1] * len(requests)
    problems: list[str | None] = [None] * len(requests)
    for index, request in enumerate(requests):
        match = request.match
        if match is None or request.held_from is None:
            continue
        problems[index] = match.problem
        if index in guided_tokens:
            table.guided_to[request.slot] = request.held_from + match.length
        if request.message.grammar_after is None:
            if match.is_over:
                text_ends[index] = request.held_from + match.length
            is_open = match.problem is None and not match.is_over
            request.guided_tokens = guided_tokens.get(index) if is_open else None
    return text_ends, problems


@dataclass(frozen=True, slots=True)
class BlockOutcome:
    """What a step has made of a request's block: ``masks`` left, those that are to be ``shown``, where the
    text has ``ended``, or -1, how many tokens were ``edited``, and whether the tokens would be arbitrary."""

    index: int
    request: Request
    start: int
    length: int
    masks: int
    shown: int
    ended: int
    edited: int
    breaks: bool


def block_outcomes(
    launched: Launched, table: SlotTable, rows: IntArray, tokens: NDArray[np.int32], edits: IntArray
) -> Iterator[BlockOutcome]:
    """Of the requests ``rows`` of the step, which has committed ``tokens`` and made ``edits``."""
    batch = launched.batch
    starts, lengths = batch.block_starts[rows], batch.block_lengths[rows]
    masks, shown, ended_at = table.block_state(batch.slots[rows], starts, lengths)
    is_broken = (tokens == NOT_FINITE).any(axis=1)
    columns = (rows, starts, lengths, masks, shown, ended_at, edits, is_broken)
    for index, start, length, left, told, ended, edited, breaks in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        request = launched.requests[index]
        if ended < 0:
            ended = launched.text_ends[index]
        yield BlockOutcome(index, request, start, length, left, told, ended, edited, breaks)


def follow_markers(
    launched: Launched, table: SlotTable, live: Iterable[int], *, renew: Callable[[int], None]
) -> None:
    """Hold those of the ``live`` requests to their grammars that have committed a marker, or no more;
    ``renew`` is told the slots from which tokens were taken back."""
    starts, lengths = launched.batch.block_starts, launched.batch.block_lengths
    for index in live:
        request = launched.requests[index]
        if request.message.grammar_after is not None:
            start = int(starts[index])
            if follow_marker(table, request, start, start + int(lengths[index])):
                renew(request.slot)


def canvases_of(
    launched: Launched, table: SlotTable, live: Iterable[int], logprobs: NDArray[np.float32]
) -> dict[int, Shown]:
    """The blocks of those requests, of the ``live`` ones, that want to see them. ``logprobs``: the step's."""
    asking = [index for index in live if launched.requests[index].message.wants_canvas]
    if not asking:
        return {}
    batch, rows = launched.batch, np.array(asking)
    starts = batch.block_starts[rows]
    bounds = np.stack((starts, starts + batch.block_lengths[rows]), axis=1)
    requests = [launched.requests[index] for index in asking]
    blocks = shown_blocks(table, requests, bounds, batch.open_starts[rows], logprobs[rows])
    return dict(zip(asking, blocks, strict=True))


def note_alternatives(launched: Launched, committed: NDArray[np.int32], rows: NamedTokens | None) -> None:
    """Keep the alternatives of the tokens that the step has ``committed`` for the requests that asked."""
    batch = launched.batch
    if rows is None:
        return
    for cell, tokens, logprobs in zip(rows.place.tolist(), rows.tokens, rows.logprobs, strict=True):
        index, column = divmod(cell, batch.block)
        request = launched.requests[index]
        count = request.message.top_logprobs
        if count and committed[index, column] >= 0 and request.phase is not Phase.FINISHED:
            position = int(batch.open_starts[index]) + column
            request.alternatives[position] = _possible(tokens[:count], logprobs[:count])


def scored(request: Request, score: Score, index: int, rows: NamedTokens) -> Scored:
    """What request number ``index`` of a step wanted to know."""
    mine, count = rows.place == index, score.top_logprobs
    ranked = zip(rows.tokens[mine, 1 : count + 1], rows.logprobs[mine, 1 : count + 1], strict=True)
    alternatives = [_possible(*row) for row in ranked] if count else []
    return Scored(request.request_id, rows.logprobs[mine, 0].tolist(), request.stats(), alternatives)


def is_finite_score(index: int, rows: NamedTokens | None) -> bool:
    """Whether the log probabilities of request number ``index`` of a step are numbers."""
    return rows is None or not np.isnan(rows.logprobs[rows.place == index, 0]).any()


def _possible(tokens: NDArray[np.int32], logprobs: NDArray[np.float32]) -> list[tuple[int, float]]:
    """A banned token is no alternative."""
    kept = np.isfinite(logprobs)
    return list(zip(tokens[kept].tolist(), logprobs[kept].tolist(), strict=True))
