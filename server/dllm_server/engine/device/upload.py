"""Many small arrays from the host to the device in one copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNMENT = 16
_DTYPES = {
    np.dtype(np.int64): torch.int64,
    np.dtype(np.int32): torch.int32,
    np.dtype(np.float32): torch.float32,
    np.dtype(np.bool_): torch.bool,
    np.dtype(np.uint8): torch.uint8,
}


class Upload:
    """``add`` arrays, ``send`` them once, then ``take`` each as a tensor of its dtype and shape.

    On a CUDA device the copy comes from pinned memory and waits for nothing. On a CPU nothing is copied to
    new memory: the arrays must not be written to afterwards. ``size`` is in bytes.
    """

    def __init__(self) -> None:
        self._arrays: list[NDArray[Any]] = []
        self._places: list[int] = []
        self.size = 0
        self._sent: Tensor | None = None

    def add(self, array: NDArray[Any]) -> int:
        """The key to ``take`` it by."""
        self._arrays.append(np.ascontiguousarray(array))
        self._places.append(self.size)
        self.size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        return len(self._arrays) - 1

    def send(self, device: torch.device, into: Tensor | None = None) -> None:
        """Copy to new memory, or to the beginning of ``into``, uint8 on the device."""
        if device.type == "cpu" and into is None:
            return
        staging = torch.empty(self.size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        view = staging.numpy()
        for array, place in zip(self._arrays, self._places, strict=True):
            view[place : place + array.nbytes] = array.reshape(-1).view(np.uint8)
        if into is None:
            self._sent = staging.to(device, non_blocking=True)
        else:
            self._sent = into[: self.size]
            self._sent.copy_(staging, non_blocking=True)

    def take(self, key: int) -> Tensor:
        array, place = self._arrays[key], self._places[key]
        if self._sent is None:
            return torch.from_numpy(array)
        part = self._sent[place : place + array.nbytes]
        return part.view(_DTYPES[array.dtype]).view(array.shape)
