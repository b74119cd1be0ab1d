"""A step's plan -> one flat variable-length batch of index tensors, by array operations over all requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from dllm_kernels.attention import PagedKeys
from dllm_kernels.kv_select import PackGroup
from dllm_kernels.layout import IntArray, PaddedRows, length_groups, padded_rows
from numpy.typing import NDArray
from torch import Tensor

from dllm_server.engine.slots import SlotTable


@dataclass(frozen=True, slots=True)
class HeadRows:
    """The masked positions of the current blocks, the only rows that need logits; all ``[masked]`` int64.

    ``row`` is the flat row whose logits predict the position, ``request`` its row in the
    ``[requests, block]`` grid and ``cell`` its index in that grid flattened, ``position`` its place in the
    sequence, ``canvas`` its index in the flattened device canvas.
    """

    row: Tensor
    request: Tensor
    cell: Tensor
    position: Tensor
    canvas: Tensor


@dataclass(frozen=True, slots=True)
class StepBatch:
    """Everything a forward pass needs. Refresh rows come first, then reuse rows.

    Attributes:
        slots: int64 ``[requests]`` on the host, refresh requests first.
        canvas: int64 ``[rows]``, index of each row's token in the flattened device canvas.
        positions: int64 ``[rows]``.
        refresh_groups, pack_groups, reuse_groups: see ``dllm_kernels``.
        tail_slots: int64 ``[reuse rows]``, pool slots of the blocks' own K/V.
        head: rows to project.
        block: longest current block, the width of the ``[requests, block]`` grid.
    """

    slots: IntArray
    refresh_requests: int
    refresh_rows: int
    canvas: Tensor
    positions: Tensor
    refresh_groups: list[PaddedRows]
    pack_groups: list[PackGroup]
    reuse_groups: list[tuple[PaddedRows, PagedKeys]]
    tail_slots: Tensor
    head: HeadRows
    block: int

    @property
    def rows(self) -> int:
        return self.positions.shape[0]

    @property
    def requests(self) -> int:
        return len(self.slots)

    @property
    def kind(self) -> str:
        return step_kind(self.refresh_requests, self.requests - self.refresh_requests)


def step_kind(refresh_requests: int, reuse_requests: int) -> str:
    """refresh | reuse | mixed."""
    if refresh_requests and reuse_requests:
        return "mixed"
    return "refresh" if refresh_requests else "reuse"


ToDevice = Callable[[NDArray[np.generic]], Tensor]


def build_batch(refresh: IntArray, reuse: IntArray, table: SlotTable, device: torch.device) -> StepBatch:
    """Flatten the requests in slots ``refresh`` and ``reuse``; requests of similar length lie side by
    side."""
    refresh = refresh[np.argsort(-table.sequence_len[refresh], kind="stable")]
    reuse = reuse[np.argsort(-_key_counts(table, reuse), kind="stable")]
    slots = np.concatenate((refresh, reuse))
    is_refresh = np.arange(len(slots)) < len(refresh)
    window_start = table.block_start[slots] - table.shift
    first = np.where(is_refresh, 0, window_start)  # first queried position
    lengths = np.where(is_refresh, table.sequence_len[slots], table.block_end[slots] - window_start)
    starts = np.cumsum(lengths) - lengths
    request = np.repeat(np.arange(len(slots)), lengths)
    positions = np.arange(int(lengths.sum())) - starts[request] + first[request]
    refresh_rows = int(lengths[: len(refresh)].sum())

    def to_device(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return StepBatch(
        slots=slots,
        refresh_requests=len(refresh),
        refresh_rows=refresh_rows,
        canvas=to_device(slots[request] * table.max_model_len + positions),
        positions=to_device(positions),
        refresh_groups=_refresh_groups(starts[: len(refresh)], lengths[: len(refresh)], device),
        pack_groups=_pack_groups(refresh, starts[: len(refresh)], table, device),
        reuse_groups=_reuse_groups(
            reuse, starts[len(refresh) :] - refresh_rows, lengths[len(refresh) :], table, device
        ),
        tail_slots=to_device(_tail_slots(reuse, lengths[len(refresh) :], table)),
        head=_head_rows(slots, starts - first - table.shift, table, to_device),
        block=int((table.block_end[slots] - table.block_start[slots]).max()),
    )


def _key_counts(table: SlotTable, slots: IntArray) -> IntArray:
    """Keys a reuse request attends to: kept context and its own window."""
    return table.kept[slots] + table.block_end[slots] - table.block_start[slots] + table.shift


def _refresh_groups(starts: IntArray, lengths: IntArray, device: torch.device) -> list[PaddedRows]:
    groups = length_groups(lengths)
    return [padded_rows(starts[groups == g], lengths[groups == g], device) for g in np.unique(groups)[::-1]]


def _pack_groups(
    refresh: IntArray, starts: IntArray, table: SlotTable, device: torch.device
) -> list[PackGroup]:
    packing = table.packs[refresh] & (table.kept[refresh] > 0)
    slots, starts = refresh[packing], starts[packing]
    lengths = table.sequence_len[slots]
    groups = length_groups(lengths)
    result = []
    for group in np.unique(groups)[::-1]:
        members = slots[groups == group]
        rows = padded_rows(starts[groups == group], lengths[groups == group], device)
        position = np.arange(int(lengths[groups == group].max()))
        window_start = (table.block_start[members] - table.shift)[:, None]
        block_end = table.block_end[members][:, None]
        in_window = (position >= window_start) & (position < block_end)
        in_sequence = position < table.sequence_len[members][:, None]
        kept = table.kept[members]
        most = int(kept.max())
        is_kept = np.arange(most) < kept[:, None]
        target = np.where(is_kept, table.pool_slots[members, :most], 0)
        context = table.sequence_len[members] - (block_end - window_start)[:, 0]
        result.append(
            PackGroup(
                rows=rows,
                is_context=torch.from_numpy(in_sequence & ~in_window).to(device),
                query_weight=torch.from_numpy((in_window / (block_end - window_start)).astype(np.float32)).to(
                    device
                ),
                slots=torch.from_numpy(target).to(device),
                keeps_all=bool((kept == context).all()),
            )
        )
    return result


def _reuse_groups(
    reuse: IntArray,
    starts: IntArray,
    lengths: IntArray,
    table: SlotTable,
    device: torch.device,
) -> list[tuple[PaddedRows, PagedKeys]]:
    counts = _key_counts(table, reuse)
    groups = length_groups(counts, ratio=2.0)  # padded keys cost a block little: fewer groups
    result = []
    for group in np.unique(groups)[::-1]:
        chosen = groups == group
        most = int(counts[chosen].max())
        is_valid = np.arange(most) < counts[chosen][:, None]
        slots = table.pool_slots[reuse[chosen], :most]
        keys = PagedKeys(
            slots=torch.from_numpy(slots).to(device),
            is_valid=None if is_valid.all() else torch.from_numpy(is_valid).to(device),
        )
        result.append((padded_rows(starts[chosen], lengths[chosen], device), keys))
    return result


def _tail_slots(reuse: IntArray, lengths: IntArray, table: SlotTable) -> IntArray:
    request = np.repeat(np.arange(len(reuse)), lengths)
    within = np.arange(int(lengths.sum())) - (np.cumsum(lengths) - lengths)[request]
    return table.pool_slots[reuse[request], table.kept[reuse][request] + within]


def _head_rows(
    slots: IntArray, row_of_position_zero: IntArray, table: SlotTable, to_device: ToDevice
) -> HeadRows:
    """``row_of_position_zero``: flat row that would predict position 0 of each request."""
    length = table.block_end[slots] - table.block_start[slots]
    column = np.arange(int(length.max()))
    position = np.minimum(table.block_start[slots][:, None] + column, table.max_model_len - 1)
    is_masked = table.is_masked[slots[:, None], position] & (column < length[:, None])
    request, columns = np.nonzero(is_masked)
    positions = position[request, columns]
    return HeadRows(
        row=to_device(row_of_position_zero[request] + positions),
        request=to_device(request),
        cell=to_device(request * len(column) + columns),
        position=to_device(positions),
        canvas=to_device(slots[request] * table.max_model_len + positions),
    )
