"""Slots, which are tokens times the experts each takes, in the order of their experts: counted, then placed,
nothing read on the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton.language as tl
from torch import Tensor

from dllm_kernels.gpu.configurations import ConfigurationTable, Key, bucket
from dllm_kernels.gpu.jit import await_inputs, cdiv, jit, kernel, overlapping, power_of_two

KERNEL = "expert_order"
TILE_FIELDS = tl.constexpr(4)  # expert, first row, rows; one to spare keeps a tile in one 16-byte word
_AT_ONCE = tl.constexpr(32)
_RUNS_AT_ONCE = tl.constexpr(16)


@dataclass(frozen=True, slots=True)
class ExpertOrder:
    """Rows are slots in the order of their experts, then of their tokens.

    Attributes:
        tokens: int32 ``[rows]``, the token of each row.
        rows: int32 ``[slots]``, where each slot, ``taken`` a token, has gone.
        ends: int32 ``[experts]``, the end of each expert's rows.
        tiles: int32 ``[most tiles, 4]``: expert, first row and number of rows, at most ``block_rows``.
        filled_tiles: int32 ``[1]``, how many of the tiles there are.
    """

    tokens: Tensor
    rows: Tensor
    ends: Tensor
    tiles: Tensor
    filled_tiles: Tensor
    block_rows: int


@kernel("slots")
def _count(
    experts: tl.tensor,
    ranks: tl.tensor,
    counts: tl.tensor,
    slots: tl.tensor,
    columns: tl.constexpr,
    overlaps: tl.constexpr,
    block_slots: tl.constexpr,
) -> None:
    """One program: one run of slots; how many of each expert, and before each slot of its own expert."""
    await_inputs(overlaps)
    first = tl.program_id(0) * block_slots
    lane = tl.arange(0, block_slots)
    holds = first + lane < slots
    expert = tl.load(experts + first + lane, mask=holds, other=0)
    before = tl.zeros((_AT_ONCE, block_slots), tl.int32)
    for start in range(0, block_slots, _AT_ONCE):
        other = start + tl.arange(0, _AT_ONCE)
        of_other = tl.load(experts + first + other, mask=first + other < slots, other=-1)
        is_before = (of_other[:, None] == expert[None, :]) & (other[:, None] < lane[None, :])
        before += is_before.to(tl.int32)
    tl.store(ranks + first + lane, tl.sum(before, 0), mask=holds)
    place = counts + tl.program_id(0) * columns + tl.arange(0, columns)
    tl.store(place, tl.histogram(expert, columns, mask=holds))


@kernel("slots", "runs")
def _place(
    experts: tl.tensor,
    counts: tl.tensor,
    rows: tl.tensor,
    tokens: tl.tensor,
    ends: tl.tensor,
    tiles: tl.tensor,
    filled_tiles: tl.tensor,
    slots: tl.tensor,
    runs: tl.tensor,
    count: tl.constexpr,
    taken: tl.constexpr,
    columns: tl.constexpr,
    block_rows: tl.constexpr,
    overlaps: tl.constexpr,
    block_slots: tl.constexpr,
) -> None:
    """One program: one run of slots, and its share of the tiles. ``rows`` are ranks before, rows after."""
    await_inputs(overlaps)
    run = tl.program_id(0)
    expert = tl.arange(0, columns)
    total = tl.zeros((columns,), tl.int32)
    before = tl.zeros((columns,), tl.int32)
    for start in range(0, runs, _RUNS_AT_ONCE):
        number = start + tl.arange(0, _RUNS_AT_ONCE)
        place = counts + number[:, None] * columns + expert[None, :]
        part = tl.load(place, mask=(number < runs)[:, None], other=0)
        total += tl.sum(part, 0)
        before += tl.sum(tl.where((number < run)[:, None], part, 0), 0)
    end = tl.cumsum(total, 0)
    first = end - total
    slot = run * block_slots + tl.arange(0, block_slots)
    holds = slot < slots
    of_slot = tl.load(experts + slot, mask=holds, other=0)
    row = tl.gather(first + before, of_slot, 0) + tl.load(rows + slot, mask=holds, other=0)
    tl.store(rows + slot, row, mask=holds)
    tl.store(tokens + row, slot // taken, mask=holds)
    tile_count = (total + block_rows - 1) // block_rows
    end_tile = tl.cumsum(tile_count, 0)
    if run == 0:
        tl.store(ends + expert, end, mask=expert < count)
        tl.store(filled_tiles, tl.max(end_tile, 0))
    for number in range(run, tl.max(tile_count, 0), runs):
        first_row = first + number * block_rows
        fields = tiles + (end_tile - tile_count + number) * TILE_FIELDS
        has_tile = number < tile_count
        tl.store(fields, expert, mask=has_tile)
        tl.store(fields + 1, first_row, mask=has_tile)
        tl.store(fields + 2, tl.minimum(end - first_row, block_rows), mask=has_tile)


def key_of(experts: Tensor, count: int) -> Key:
    return bucket(experts.numel()), count


def order_by_expert(table: ConfigurationTable, experts: Tensor, count: int, block_rows: int) -> ExpertOrder:
    """``experts`` int32 ``[tokens, taken]``, at least one, each below ``count``."""
    slots, taken = experts.numel(), experts.shape[1]
    configuration = table.get(KERNEL, key_of(experts, count))
    runs, columns = cdiv(slots, configuration.blocks["block_slots"]), max(32, power_of_two(count))

    def empty(*size: int) -> Tensor:
        return torch.empty(size, dtype=torch.int32, device=experts.device)

    order = ExpertOrder(
        tokens=empty(slots),
        rows=empty(slots),
        ends=empty(count),
        tiles=empty(slots // block_rows + count, 4),
        filled_tiles=empty(1),
        block_rows=block_rows,
    )
    counts = empty(runs, columns)
    launch = {"columns": columns, **configuration.launch, **overlapping(experts)}
    _count[(runs,)](experts, order.rows, counts, slots, **launch)
    _place[(runs,)](
        experts,
        counts,
        order.rows,
        order.tokens,
        order.ends,
        order.tiles,
        order.filled_tiles,
        slots,
        runs,
        count=count,
        taken=taken,
        block_rows=block_rows,
        **launch,
    )
    return order


@jit
def pick_tile(
    tile: tl.tensor, tiles: tl.tensor, filled_tiles: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Expert, first row and rows of a program's tile; no rows where there is no such tile."""
    holds = tile < tl.load(filled_tiles)
    fields = tiles + tile * TILE_FIELDS
    first = tl.load(fields + 1, mask=holds, other=0)
    return tl.load(fields, mask=holds, other=0), first, tl.load(fields + 2, mask=holds, other=0)
