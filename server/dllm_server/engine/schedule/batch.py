"""A step's plan -> one flat variable-length batch: which row is which token of which request. Host arrays,
by array operations over all requests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from dllm_kernels.layout import IntArray
from numpy.typing import NDArray

from dllm_server.engine.requests.slots import SlotTable


@dataclass(frozen=True, slots=True)
class HeadRows:
    """The masked positions of the current blocks, the only rows that need logits; all ``[masked]`` int64.
    Of a block that an earlier step is still committing to, also those that it may commit; of one that is
    edited, all but the prompt's.

    ``row`` is the flat row whose logits predict the position, ``request`` its row in the
    ``[requests, block]`` grid and ``cell`` its index in that grid flattened, ``position`` its place in the
    sequence, ``canvas`` its index in the flattened device canvas.
    """

    row: IntArray
    request: IntArray
    cell: IntArray
    position: IntArray
    canvas: IntArray


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """The masked positions of the requests that score; all ``[scored]`` int64, request by request, in order.

    ``row`` is the flat row whose logits predict the position, ``request`` its request in the batch and
    ``target`` the token that stands there.
    """

    row: IntArray
    request: IntArray
    target: IntArray


@dataclass(frozen=True, slots=True)
class StepBatch:
    """Refresh requests, whose rows are the whole sequence, come first, then reuse requests, whose rows read
    pages; the last ``wide_requests`` of these refresh all but the prompt, or are prefilled.

    Attributes:
        slots: int64 ``[requests]``.
        starts, lengths: int64 ``[requests]``, each request's flat rows.
        block_starts, block_lengths: int64 ``[requests]``, positions of the current blocks.
        open_starts: int64 ``[requests]``, the position of the first column of the ``[requests, block]`` grid.
        key_counts: int64 ``[reuse requests]``, keys each attends to.
        canvas: int64 ``[rows]``, index of each row's token in the flattened device canvas.
        positions: int64 ``[rows]``.
        tail_slots: int64 ``[reuse rows]``, pool slots of the rows' own K/V.
        guided: the same rows as ``head`` of the requests with a grammar, which has none of these.
        block: most positions of a request that the step may choose tokens for, the width of the grid.
    """

    slots: IntArray
    refresh_requests: int
    refresh_rows: int
    wide_requests: int
    starts: IntArray
    lengths: IntArray
    block_starts: IntArray
    block_lengths: IntArray
    open_starts: IntArray
    key_counts: IntArray
    canvas: IntArray
    positions: IntArray
    tail_slots: IntArray
    head: HeadRows
    guided: HeadRows
    scored: ScoredRows
    block: int

    @property
    def requests(self) -> int:
        return len(self.slots)

    @property
    def rows(self) -> int:
        return len(self.positions)

    @property
    def logits_rows(self) -> int:
        return len(self.head.row) + len(self.scored.row) + len(self.guided.row)


def build_batch(refresh: IntArray, reuse: IntArray, table: SlotTable) -> StepBatch:
    """Flatten the requests in slots ``refresh`` and ``reuse``; requests of similar length lie side by
    side."""
    refresh = refresh[np.argsort(-table.sequence_len[refresh], kind="stable")]
    is_wide = _is_wide(table, reuse)
    reuse = reuse[np.lexsort((-table.keys[reuse], is_wide))]
    slots = np.concatenate((refresh, reuse))
    is_refresh = np.arange(len(slots)) < len(refresh)
    first = np.where(is_refresh, 0, table.first[slots])
    lengths = np.where(is_refresh, table.sequence_len[slots], table.until[slots]) - first
    starts = np.cumsum(lengths) - lengths
    request = np.repeat(np.arange(len(slots)), lengths)
    positions = np.arange(int(lengths.sum())) - starts[request] + first[request]
    refresh_rows = int(lengths[: len(refresh)].sum())
    row_of_position_zero = starts - first - table.shift
    reuse_of_row = slots[request[refresh_rows:]]
    return StepBatch(
        slots=slots,
        refresh_requests=len(refresh),
        refresh_rows=refresh_rows,
        wide_requests=int(is_wide.sum()),
        starts=starts,
        lengths=lengths,
        block_starts=table.block_start[slots],
        block_lengths=table.block_end[slots] - table.block_start[slots],
        open_starts=table.open_start[slots],
        key_counts=table.keys[reuse],
        canvas=slots[request] * table.max_model_len + positions,
        positions=positions,
        tail_slots=table.pool_slots[reuse_of_row, positions[refresh_rows:] - table.origin[reuse_of_row]],
        head=_head(slots, row_of_position_zero, table, is_guided=False),
        guided=_head(slots, row_of_position_zero, table, is_guided=True),
        scored=_scored(slots, row_of_position_zero, table),
        block=_grid_width(slots, table),
    )


def _is_wide(table: SlotTable, slots: IntArray) -> NDArray[np.bool_]:
    """Whether more is queried than what denoising does: a block, and what goes with it."""
    block = table.block_end[slots] - table.block_start[slots]
    return table.until[slots] - table.first[slots] > block + (table.grid or table.shift)


def _grid_width(slots: IntArray, table: SlotTable) -> int:
    return max(int((table.open_end[slots] - table.open_start[slots]).max()), 1)


def _head(slots: IntArray, row_of_position_zero: IntArray, table: SlotTable, *, is_guided: bool) -> HeadRows:
    """Of the requests with a grammar, or of the others. ``row_of_position_zero``: flat row that would predict
    position 0 of each request."""
    takes_part = table.is_guided[slots] == is_guided
    length = np.minimum(table.open_end, table.closed_from)[slots] - table.open_start[slots]
    column = np.arange(_grid_width(slots, table))
    position = np.minimum(table.open_start[slots][:, None] + column, table.max_model_len - 1)
    is_open = table.is_masked[slots[:, None], position]
    is_open |= (table.edit_threshold[slots] < np.inf)[:, None] & (
        position >= table.prompt_len[slots][:, None]
    )
    is_open &= (column < length[:, None]) & (takes_part & ~table.scores[slots])[:, None]
    if is_guided:
        is_open &= position >= table.guided_to[slots][:, None]
    request, columns = np.nonzero(is_open)
    positions = position[request, columns]
    return HeadRows(
        row=row_of_position_zero[request] + positions,
        request=request,
        cell=request * len(column) + columns,
        position=positions,
        canvas=slots[request] * table.max_model_len + positions,
    )


def _scored(slots: IntArray, row_of_position_zero: IntArray, table: SlotTable) -> ScoredRows:
    members = np.flatnonzero(table.scores[slots])
    lengths = table.sequence_len[slots[members]]
    is_scored = table.is_masked[slots[members], : int(lengths.max(initial=0))]
    member, position = np.nonzero(is_scored & (np.arange(is_scored.shape[1]) < lengths[:, None]))
    request = members[member]
    return ScoredRows(
        row=row_of_position_zero[request] + position,
        request=request,
        target=table.token_ids[slots[request], position],
    )
