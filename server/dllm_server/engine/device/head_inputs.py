"""A batch's masked positions on the device, and how their requests choose and commit tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from dllm_kernels.commit import CommitRows
from dllm_kernels.layout import IntArray
from dllm_kernels.lm_head import Sampling
from dllm_kernels.noise import noise_keys
from dllm_kernels.whole_logits import WholeRows
from numpy.typing import NDArray
from torch import Tensor

from dllm_server.engine.device.denoise import CommitRule
from dllm_server.engine.device.upload import Upload
from dllm_server.engine.device.whole_inputs import fused_first, whole_columns, whole_rows
from dllm_server.engine.requests.slots import CONFIDENCES, STRATEGIES, SlotTable
from dllm_server.engine.schedule.batch import StepBatch
from dllm_server.settings import Confidence


@dataclass(frozen=True, slots=True)
class HeadInputs:
    """``row`` int64 ``[masked + scored + guided]``: see ``HeadRows``, with the rows that need their logits
    whole last, from ``split`` on; then those of ``ScoredRows``, with ``target`` int64 ``[scored]``, and those
    with a grammar. Where there are both
    kinds of the former, ``place`` int64 ``[masked]`` says where each of ``HeadRows`` has gone. ``sampling``
    is that of the rows before ``split``, ``whole`` what the others ask for; ``named`` int64, on the host, the
    cells of the latter if alternatives are wanted of any, else empty.

    ``rule`` says which of a request's rows are committed; ``commits`` are those rows. ``confidence`` int64
    ``[masked]`` (index into ``CONFIDENCES``, or ``BY_POSITION``) is what ranks a position, ``confidences``
    what occurs. ``keys`` int64 ``[masked]`` is there where any request samples or ranks at random.
    """

    row: Tensor
    split: int
    place: Tensor | None
    sampling: Sampling | None
    whole: WholeRows
    named: IntArray
    target: Tensor
    commits: CommitRows
    rule: CommitRule
    confidences: frozenset[int]
    confidence: Tensor
    keys: Tensor | None


def place_head(batch: StepBatch, table: SlotTable, device: torch.device) -> HeadInputs:
    """Send what the head needs to the device."""
    slots, head, upload = batch.slots, batch.head, Upload()
    of_row = slots[head.request]  # each masked position's slot
    kinds, samples = np.unique(table.confidence[slots]), bool(table.temperature[slots].any())
    confidences = frozenset(kinds.tolist())
    strategies = frozenset(STRATEGIES[kind] for kind in np.unique(table.strategy[slots]))
    has_keys = samples or CONFIDENCES.index(Confidence.RANDOM) in confidences
    order, split = fused_first(batch, table)
    temperature, whole = table.temperature[of_row[order]], of_row[order][split:]
    is_named = bool(table.alternatives[whole].any())
    columns: dict[str, NDArray[Any]] = {
        "row": np.concatenate((head.row[order], batch.scored.row, batch.guided.row)),
        "target": batch.scored.target,
        "cell": head.cell,
        "canvas": head.canvas,
        "strategy": table.strategy[slots],
        "value": table.value[slots],
        "first": np.searchsorted(head.request, np.arange(len(slots) + 1)).astype(np.int32),
        "quota": table.quota[slots],
        "threshold": table.threshold[slots],
        "confidence": table.confidence[of_row],
        "temperature": temperature,
    }
    if has_keys:
        columns |= {"seed": table.seed[of_row], "position": head.position, "step": table.step[of_row]}
    if isinstance(order, np.ndarray):
        columns |= {"order": order, "place": np.argsort(order)}
    if has_edits := bool((table.edit_threshold[slots] < np.inf).any()):
        columns["edit"] = table.edit_threshold[of_row]
    columns |= whole_columns(table, whole, head.position[order][split:])
    uploads = {name: upload.add(column) for name, column in columns.items()}
    upload.send(device)
    sent = {name: upload.take(key) for name, key in uploads.items()}
    keys = noise_keys(sent["seed"], sent["position"], sent["step"]) if has_keys else None

    def sampling_of(part: slice) -> Sampling | None:
        if keys is None or not temperature[part].any():
            return None
        ordered = keys[sent["order"]] if "order" in sent else keys
        return Sampling(sent["temperature"][part], ordered[part])

    return HeadInputs(
        row=sent["row"],
        split=split,
        place=sent.get("place"),
        sampling=sampling_of(slice(0, split)),
        whole=whole_rows(sampling_of(slice(split, None)), sent, is_named=is_named),
        named=head.cell[order][split:] if is_named else head.cell[:0],
        target=sent["target"],
        commits=CommitRows(
            sent["canvas"],
            sent["cell"],
            sent["first"],
            sent["quota"],
            sent["threshold"],
            sent["edit"] if has_edits else None,
        ),
        rule=CommitRule(
            sent["quota"],
            sent["threshold"],
            sent["value"],
            sent["strategy"],
            strategies,
            counts_own=table.grid > 0,
        ),
        confidences=confidences,
        confidence=sent["confidence"],
        keys=keys,
    )
