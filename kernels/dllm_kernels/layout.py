"""How a step's flat rows belong to requests: built once a step on the host, used by every layer's attention.

A kernel needs only offsets and lengths. The PyTorch twins also need padded groups: requests of similar
length share one dense ``[requests, length]`` index, so that padding stays bounded whatever the mix of
lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class PaddedRows(RowSpans):
    """Flat rows of some requests, also as a dense index that is built when it is first read.

    ``host_starts`` and ``host_lengths`` int64 ``[requests]`` say on the host what ``offsets`` and ``lengths``
    say on the device.
    """

    host_starts: IntArray
    host_lengths: IntArray

    @cached_property
    def start(self) -> int | None:
        """The first row when the group is one contiguous run without padding, so that a view replaces the
        gather."""
        is_run = bool((np.diff(self.host_starts) == self.longest).all())
        return int(self.host_starts[0]) if self.is_valid is None and is_run else None

    @cached_property
    def is_valid(self) -> Tensor | None:
        """Bool ``[requests, length]``, None when nothing is padded."""
        if (self.host_lengths == self.longest).all():
            return None
        return torch.from_numpy(self._is_inside).to(self.offsets.device)

    @cached_property
    def rows(self) -> Tensor:
        """int64 ``[requests, length]``, 0 where padded."""
        return torch.from_numpy(self._host_rows).to(self.offsets.device)

    def gather(self, flat: Tensor) -> Tensor:
        """``[rows, ...]`` -> ``[requests, length, ...]``, 0 where padded: a NaN there would be another
        request's, and 0 times it a NaN."""
        if self.start is not None:
            dense = (len(self.host_starts), self.longest)
            return flat[self.start : self.start + self.total].view(*dense, *flat.shape[1:])
        return cleared(flat[self.rows], self.is_valid)

    def scatter(self, dense: Tensor, flat: Tensor) -> None:
        """Write the valid cells of ``[requests, length, ...]`` to their rows of ``flat``."""
        if self.start is not None:
            flat[self.start : self.start + self.total] = dense.flatten(0, 1)
        else:
            cells, rows = self._valid
            flat[rows] = dense.flatten(0, 1)[cells]

    @cached_property
    def _valid(self) -> tuple[Tensor, Tensor]:
        """Pairs of cells of the dense index and their flat rows, int64 ``[valid]`` each."""
        cells = np.flatnonzero(self._is_inside)
        pair = torch.from_numpy(np.stack((cells, self._host_rows.reshape(-1)[cells])))
        cells_of, rows_of = pair.to(self.offsets.device)
        return cells_of, rows_of

    @cached_property
    def _is_inside(self) -> NDArray[np.bool_]:
        return np.arange(self.longest) < self.host_lengths[:, None]

    @cached_property
    def _host_rows(self) -> IntArray:
        return np.where(self._is_inside, self.host_starts[:, None] + np.arange(self.longest), 0)


def cleared(dense: Tensor, is_valid: Tensor | None) -> Tensor:
    """``dense`` [requests, length, ...] with zeros, in place, where ``is_valid`` [requests, length] is no."""
    if is_valid is None:
        return dense
    return dense.masked_fill_(~is_valid.view(*is_valid.shape, *(1,) * (dense.ndim - 2)), 0)


def length_groups(lengths: IntArray, ratio: float = 1.5) -> IntArray:
    """A group number for each request: the longest of a group is less than ``ratio`` times its shortest."""
    return np.floor(np.log(np.maximum(lengths, 1)) / math.log(ratio)).astype(np.int64)


def span_ends(starts: IntArray, lengths: IntArray) -> NDArray[np.int32]:
    """The numbers of ``padded_rows`` that the device needs, int32 ``[2 * requests + 1]``."""
    return np.concatenate((starts, starts[-1:] + lengths[-1:], lengths)).astype(np.int32)


def padded_rows(
    starts: IntArray, lengths: IntArray, device: torch.device, ends: Tensor | None = None
) -> PaddedRows:
    """Requests whose flat rows are ``starts[i] ... starts[i] + lengths[i]``; at least one.

    Args:
        ends: ``span_ends`` of the same requests where they are on the device already.
    """
    if ends is None:
        ends = torch.from_numpy(span_ends(starts, lengths)).to(device)
    return PaddedRows(
        offsets=ends[: len(starts) + 1],
        lengths=ends[len(starts) + 1 :],
        longest=int(lengths.max()),
        total=int(lengths.sum()),
        is_contiguous=bool((starts[:-1] + lengths[:-1] == starts[1:]).all()),
        host_starts=starts,
        host_lengths=lengths,
    )
