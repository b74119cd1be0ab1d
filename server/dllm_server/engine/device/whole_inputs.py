"""Which of a batch's masked positions need their logits whole, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from dllm_kernels.layout import IntArray
from dllm_kernels.lm_head import Sampling
from dllm_kernels.whole_logits import WholeRows
from numpy.typing import NDArray
from torch import Tensor

from dllm_server.engine.requests.messages import MOST_ALTERNATIVES
from dllm_server.engine.requests.slots import SlotTable
from dllm_server.engine.schedule.batch import StepBatch


def fused_first(batch: StepBatch, table: SlotTable) -> tuple[IntArray | slice, int]:
    """An order of ``batch.head``'s rows in which those that need their logits whole come last, and how many
    come before them. What a row needs is its own request's affair alone."""
    slots, head = batch.slots, batch.head
    asks = table.is_filtered[slots] | (table.alternatives[slots] > 0)
    bans = table.stops_from[slots] > batch.block_starts
    if not (asks | bans).any():
        return slice(None), len(head.row)
    needs = asks[head.request] | (head.position < table.stops_from[slots[head.request]])
    split = len(needs) - int(needs.sum())
    return (np.argsort(needs, kind="stable") if 0 < split < len(needs) else slice(None)), split


def whole_columns(table: SlotTable, slots: IntArray, positions: IntArray) -> dict[str, NDArray[Any]]:
    """Host arrays for ``whole_rows``, of rows that predict ``positions`` for the requests in ``slots``."""
    columns: dict[str, NDArray[Any]] = {}
    if table.is_filtered[slots].any():
        columns |= {"top_p": table.top_p[slots], "top_k": table.top_k[slots]}
    is_banned = positions < table.stops_from[slots]
    if is_banned.any():
        width = int(table.stop_count[slots].max())
        # The mask token, which is banned anyway, where there is nothing to ban.
        stops = np.where(is_banned[:, None], table.stop_token_ids[slots, :width], -1)
        columns["banned"] = np.where(stops < 0, table.mask_token_id, stops)
    return columns


def whole_rows(sampling: Sampling | None, sent: Mapping[str, Tensor], *, is_named: bool) -> WholeRows:
    """``sent`` holds ``whole_columns`` on the device. Alternatives are always as many, so that nobody's
    depend on who else asks."""
    return WholeRows(
        sampling,
        sent.get("top_p"),
        sent.get("top_k"),
        sent.get("banned"),
        None,
        MOST_ALTERNATIVES if is_named else 0,
    )
