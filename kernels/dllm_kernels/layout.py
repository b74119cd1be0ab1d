"""How a step's flat rows belong to requests: built once a step on the host, used by every layer's attention.

A kernel needs only offsets and lengths. The PyTorch twins also need padded groups: requests of similar
length share one dense ``[requests, length]`` index, so that padding stays bounded whatever the mix of
lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSpans:
    """Flat rows of some requests by their ends, which is all that a compiled kernel needs.

    ``offsets`` int32 ``[requests + 1]``: each request's first row, then the end of the last request.
    ``lengths`` int32 ``[requests]``; ``longest`` is at least their maximum, ``total`` their sum.
    ``is_contiguous``: each request's rows end where the next one's begin, so that ``offsets`` are cumulative
    lengths.
    """

    offsets: Tensor
    lengths: Tensor
    longest: int
    total: int
    is_contiguous: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedRows(RowSpans):
    """Flat rows of some requests, also as a dense index.

    ``rows`` int64 ``[requests, length]`` is 0 where padded; ``is_valid`` bool of the same shape is None when
    nothing is padded. ``valid_cells`` and ``valid_rows`` int64 ``[valid]`` pair the cells of the dense index
    with their flat rows. ``start`` is the first row when the group is one contiguous run without padding, so
    that a view replaces the gather.
    """

    rows: Tensor
    is_valid: Tensor | None
    valid_cells: Tensor
    valid_rows: Tensor
    start: int | None

    def gather(self, flat: Tensor) -> Tensor:
        """``[rows, ...]`` -> ``[requests, length, ...]``; padded cells hold some row's values."""
        if self.start is not None:
            return flat[self.start : self.start + self.rows.numel()].view(*self.rows.shape, *flat.shape[1:])
        return flat[self.rows]

    def scatter(self, dense: Tensor, flat: Tensor) -> None:
        """Write the valid cells of ``[requests, length, ...]`` to their rows of ``flat``."""
        if self.start is not None:
            flat[self.start : self.start + self.rows.numel()] = dense.flatten(0, 1)
        else:
            flat[self.valid_rows] = dense.flatten(0, 1)[self.valid_cells]


def length_groups(lengths: IntArray, ratio: float = 1.5) -> IntArray:
    """A group number for each request: the longest of a group is less than ``ratio`` times its shortest."""
    return np.floor(np.log(np.maximum(lengths, 1)) / math.log(ratio)).astype(np.int64)


def row_spans(starts: IntArray, lengths: IntArray, device: torch.device) -> RowSpans:
    """Spans of requests whose flat rows are ``starts[i] ... starts[i] + lengths[i]``."""
    ends = starts + lengths
    numbers = np.concatenate((starts, ends[-1:], lengths)).astype(np.int32)
    both = torch.from_numpy(numbers).to(device, non_blocking=True)
    return RowSpans(
        offsets=both[: len(starts) + 1],
        lengths=both[len(starts) + 1 :],
        longest=int(lengths.max()),
        total=int(lengths.sum()),
        is_contiguous=bool((ends[:-1] == starts[1:]).all()),
    )


def padded_rows(starts: IntArray, lengths: IntArray, device: torch.device) -> PaddedRows:
    """Dense index of requests whose flat rows are ``starts[i] ... starts[i] + lengths[i]``."""
    spans = row_spans(starts, lengths, device)
    longest = spans.longest
    column = np.arange(longest)
    is_full = bool((lengths == longest).all())
    if is_full and bool((np.diff(starts) == longest).all()):
        dense = torch.from_numpy(starts[:, None] + column).to(device)
        nothing = torch.empty(0, dtype=torch.int64, device=device)
        return PaddedRows(
            offsets=spans.offsets,
            lengths=spans.lengths,
            longest=longest,
            total=spans.total,
            is_contiguous=spans.is_contiguous,
            rows=dense,
            is_valid=None,
            valid_cells=nothing,
            valid_rows=nothing,
            start=int(starts[0]),
        )
    is_valid = column < lengths[:, None]
    rows = np.where(is_valid, starts[:, None] + column, 0)
    cells = np.flatnonzero(is_valid)
    return PaddedRows(
        offsets=spans.offsets,
        lengths=spans.lengths,
        longest=longest,
        total=spans.total,
        is_contiguous=spans.is_contiguous,
        rows=torch.from_numpy(rows).to(device),
        is_valid=None if is_full else torch.from_numpy(is_valid).to(device),
        valid_cells=torch.from_numpy(cells).to(device),
        valid_rows=torch.from_numpy(rows.reshape(-1)[cells]).to(device),
        start=None,
    )
