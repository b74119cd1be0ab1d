"""A batch's rows on the device: what the forward pass reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from dllm_kernels.attention import PagedKeys
from dllm_kernels.kv_select import PackGroup
from dllm_kernels.layout import IntArray, PaddedRows, length_groups, padded_rows, span_ends
from torch import Tensor

from dllm_server.engine.device.device_table import DeviceTable
from dllm_server.engine.device.upload import Upload
from dllm_server.engine.requests.slots import SlotTable
from dllm_server.engine.schedule.batch import StepBatch

_REFRESH_RATIO = 1.5
_REUSE_RATIO = 2.0  # padded keys cost a block little: fewer groups


@dataclass(frozen=True, slots=True)
class ForwardInputs:
    """``canvas`` and ``positions`` int64 ``[rows]``, ``tail_slots`` int64 ``[reuse rows]``: see
    ``StepBatch``; groups: see ``dllm_kernels``."""

    canvas: Tensor
    positions: Tensor
    tail_slots: Tensor
    refresh_groups: list[PaddedRows]
    pack_groups: list[PackGroup]
    reuse_groups: list[tuple[PaddedRows, PagedKeys]]


def place_forward(
    batch: StepBatch, table: SlotTable, on_device: DeviceTable, *, is_grouped: bool
) -> ForwardInputs:
    """Send a batch to the device.

    Args:
        is_grouped: requests of similar length in groups of their own, for operations that pad.
    """
    upload = Upload()
    canvas, positions = upload.add(batch.canvas), upload.add(batch.positions)
    tail_slots = upload.add(batch.tail_slots)
    split = batch.refresh_requests
    refresh = np.arange(split)
    packing = np.flatnonzero(table.packs[batch.slots[:split]] & (table.kept[batch.slots[:split]] > 0))
    ratio = _REFRESH_RATIO if is_grouped else None
    refresh_groups = [
        _add_rows(upload, batch, members, on_device.device)
        for members in _similar(refresh, batch.lengths[:split], ratio)
    ]
    pack_groups = [
        _add_pack(upload, batch, members, table, on_device)
        for members in _similar(packing, batch.lengths[packing], ratio)
    ]
    behind_fixed = np.flatnonzero(table.fixed[batch.slots[:split]] > 0)
    pack_groups += [
        _add_whole_pack(upload, batch, members, table, on_device)
        for members in _similar(behind_fixed, batch.lengths[behind_fixed], ratio)
    ]
    # Tiles that fit a block's rows waste most of what a longer span has, and the other way round.
    ratio = _REUSE_RATIO if is_grouped else None
    reuse_groups = [
        _add_reuse(upload, batch, members, table, on_device)
        for part in np.split(np.arange(split, batch.requests), [batch.requests - batch.wide_requests - split])
        for members in _similar(part, batch.key_counts[part - split], ratio)
    ]
    upload.send(on_device.device)
    return ForwardInputs(
        canvas=upload.take(canvas),
        positions=upload.take(positions),
        tail_slots=upload.take(tail_slots),
        refresh_groups=[take() for take in refresh_groups],
        pack_groups=[take() for take in pack_groups],
        reuse_groups=[take() for take in reuse_groups],
    )


def _similar(members: IntArray, sizes: IntArray, ratio: float | None) -> list[IntArray]:
    """``members`` by similar ``sizes``, the largest first; all in one group without a ratio."""
    if ratio is None or not len(members):
        return [members] if len(members) else []
    groups = length_groups(sizes, ratio)
    return [members[groups == group] for group in np.unique(groups)[::-1]]


def _add_rows(
    upload: Upload, batch: StepBatch, members: IntArray, device: torch.device, first_row: int = 0
) -> Callable[[], PaddedRows]:
    """What makes the group's rows once the upload is sent; rows count from ``first_row``."""
    starts, lengths = batch.starts[members] - first_row, batch.lengths[members]
    ends = upload.add(span_ends(starts, lengths))
    return lambda: padded_rows(starts, lengths, device, upload.take(ends))


def pack_columns(table: SlotTable, slots: IntArray) -> IntArray:
    """What ``pack_group`` needs of each request, int64 ``[5, requests]``: slot, kept tokens, start and end of
    the window that will read them, and the end of what tokens are kept of. Those of a prompt that is not
    refreshed in every block are read by all that is still to be generated."""
    window_start, is_fixed = table.block_start[slots] - table.shift, table.fixed[slots] > 0
    window_end = np.where(is_fixed, table.sequence_len[slots], table.block_end[slots])
    return np.stack((slots, table.kept[slots], window_start, window_end, table.context_end[slots]))


def pack_group(
    rows: PaddedRows, columns: Tensor, on_device: DeviceTable, most: int, *, keeps_all: bool
) -> PackGroup:
    """``columns``: ``pack_columns`` on the device. ``most``: at least the most tokens that any keeps."""
    slot, kept, start, end, context_end = columns[:, :, None].unbind()
    position = torch.arange(rows.longest, device=on_device.device)
    in_window = (position >= start) & (position < end)
    return PackGroup(
        rows=rows,
        is_context=(position < context_end) & ~in_window,
        query_weight=in_window / (end - start).float(),
        slots=on_device.pool_slots[slot[:, 0], :most] * (position[:most] < kept),
        keeps_all=keeps_all,
    )


def _add_pack(
    upload: Upload, batch: StepBatch, members: IntArray, table: SlotTable, on_device: DeviceTable
) -> Callable[[], PackGroup]:
    rows = _add_rows(upload, batch, members, on_device.device)
    values = pack_columns(table, batch.slots[members])
    columns = upload.add(values)
    _, kept, start, end, context_end = values
    context = np.where(context_end > start, context_end - (end - start), context_end)
    keeps_all = bool((kept == context).all())
    return lambda: pack_group(rows(), upload.take(columns), on_device, int(kept.max()), keeps_all=keeps_all)


def _add_whole_pack(
    upload: Upload, batch: StepBatch, members: IntArray, table: SlotTable, on_device: DeviceTable
) -> Callable[[], PackGroup]:
    """K/V of everything behind the fixed tokens, in the order of its positions."""
    rows = _add_rows(upload, batch, members, on_device.device)
    slots = batch.slots[members]
    fixed, counts = table.fixed[slots], batch.lengths[members] - table.fixed[slots]
    columns, most = upload.add(np.stack((slots, table.kept[slots], fixed, counts))), int(counts.max())

    def take() -> PackGroup:
        spans, (slot, kept, first, count) = rows(), upload.take(columns)[:, :, None].unbind()
        position, entry = (torch.arange(size, device=on_device.device) for size in (spans.longest, most))
        entries = (kept + entry).clamp_max(on_device.pool_slots.shape[1] - 1)
        is_context = (position >= first) & (position < spans.lengths[:, None])
        return PackGroup(
            rows=spans,
            is_context=is_context,
            query_weight=is_context.float(),
            slots=on_device.pool_slots[slot, entries] * (entry < count),
            keeps_all=True,
        )

    return take


def _add_reuse(
    upload: Upload, batch: StepBatch, members: IntArray, table: SlotTable, on_device: DeviceTable
) -> Callable[[], tuple[PaddedRows, PagedKeys]]:
    rows = _add_rows(upload, batch, members, on_device.device, batch.refresh_rows)
    host_counts = batch.key_counts[members - batch.refresh_requests]
    slots, counts = upload.add(batch.slots[members]), upload.add(host_counts.astype(np.int32))
    most = int(host_counts.max())

    def take() -> tuple[PaddedRows, PagedKeys]:
        keys = on_device.pool_slots[upload.take(slots), :most]
        return rows(), PagedKeys(keys, upload.take(counts), bool((host_counts < most).any()), table.grid)

    return take
