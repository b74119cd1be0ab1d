"""A batch's masked positions on the device, and how their requests choose and commit tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from dllm_kernels.commit import CommitRows
from dllm_kernels.lm_head import Sampling
from dllm_kernels.noise import noise_keys
from numpy.typing import NDArray
from torch import Tensor

from dllm_server.engine.device.upload import Upload
from dllm_server.engine.requests.slots import CONFIDENCES, STRATEGIES, SlotTable
from dllm_server.engine.schedule.batch import StepBatch
from dllm_server.settings import Confidence, Strategy


@dataclass(frozen=True, slots=True)
class HeadInputs:
    """``row`` int64 ``[masked]``: see ``HeadRows``. ``commits`` is how many of a request's rows are committed
    where all requests say it by rank or threshold.

    ``strategy`` int64 (index into ``STRATEGIES``) and ``value`` float32, both ``[requests]``, are the
    requests' commit strategies, ``strategies`` those that occur. ``confidence`` int64 ``[masked]`` (index
    into ``CONFIDENCES``) is what ranks a position, ``confidences`` what occurs. ``keys`` int64 ``[masked]``
    is there where any request samples or ranks at random, ``sampling`` where any samples.
    """

    row: Tensor
    commits: CommitRows
    strategies: frozenset[Strategy]
    strategy: Tensor
    value: Tensor
    confidences: frozenset[Confidence]
    confidence: Tensor
    keys: Tensor | None
    sampling: Sampling | None


def place_head(batch: StepBatch, table: SlotTable, device: torch.device) -> HeadInputs:
    """Send what the head needs to the device."""
    slots, head, upload = batch.slots, batch.head, Upload()
    of_row = slots[head.request]  # each masked position's slot
    kinds, samples = np.unique(table.confidence[slots]), bool(table.temperature[slots].any())
    confidences = frozenset(CONFIDENCES[kind] for kind in kinds)
    strategies = frozenset(STRATEGIES[kind] for kind in np.unique(table.strategy[slots]))
    has_keys = samples or Confidence.RANDOM in confidences
    is_quota = table.strategy[slots] == STRATEGIES.index(Strategy.QUOTA)
    columns: dict[str, NDArray[Any]] = {
        "row": head.row,
        "cell": head.cell,
        "canvas": head.canvas,
        "strategy": table.strategy[slots],
        "value": table.value[slots],
        "first": np.searchsorted(head.request, np.arange(len(slots) + 1)).astype(np.int32),
        "quota": np.where(is_quota, table.value[slots], 1).astype(np.int64),
        "threshold": np.where(is_quota, np.inf, table.value[slots]).astype(np.float32),
        "confidence": table.confidence[of_row],
    }
    if has_keys:
        columns |= {"seed": table.seed[of_row], "position": head.position, "step": table.step[of_row]}
    if samples:
        columns |= {name: getattr(table, name)[of_row] for name in ("temperature", "top_p", "top_k")}
    uploads = {name: upload.add(column) for name, column in columns.items()}
    upload.send(device)
    sent = {name: upload.take(key) for name, key in uploads.items()}
    keys = noise_keys(sent["seed"], sent["position"], sent["step"]) if has_keys else None
    sampling = None
    if samples and keys is not None:
        is_filtered = bool((table.top_p[slots] < 1).any() or (table.top_k[slots] > 0).any())
        sampling = Sampling(sent["temperature"], keys, sent["top_p"], sent["top_k"], is_filtered)
    return HeadInputs(
        row=sent["row"],
        commits=CommitRows(sent["canvas"], sent["cell"], sent["first"], sent["quota"], sent["threshold"]),
        strategies=strategies,
        strategy=sent["strategy"],
        value=sent["value"],
        confidences=confidences,
        confidence=sent["confidence"],
        keys=keys,
        sampling=sampling,
    )
