"""What the device keeps of each admitted request: its canvas and the slots of its pages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from dllm_kernels.commit import MASKED
from dllm_kernels.layout import IntArray
from numpy.typing import NDArray
from torch import Tensor

from dllm_server.engine.device.upload import Upload
from dllm_server.engine.requests.slots import SlotTable


class DeviceTable:
    """``canvas`` int64 ``[(slots + 1) * max_model_len]`` holds token ids, ``MASKED`` where none is committed;
    ``pool_slots`` int64 ``[slots + 1, entries]`` is the pool slot of a request's j-th packed entry. The last
    row belongs to nobody: padding reads it."""

    def __init__(self, table: SlotTable, device: torch.device, mask_token_id: int) -> None:
        self._table, self.device, self._mask_token_id = table, device, mask_token_id
        rows, length = table.slots + 1, table.max_model_len
        self.canvas: Tensor = torch.zeros(rows * length, dtype=torch.int64, device=device)
        self.pool_slots: Tensor = torch.zeros(
            rows, table.pool_slots.shape[1], dtype=torch.int64, device=device
        )

    def start(self, slot: int) -> None:
        """Copy a new request's row from the host's table."""
        length, table, upload = self._table.max_model_len, self._table, Upload()
        canvas = upload.add(np.where(table.is_masked[slot], MASKED, table.token_ids[slot]))
        pool_slots = upload.add(table.pool_slots[slot])
        upload.send(self.device)
        self.canvas[slot * length : (slot + 1) * length] = upload.take(canvas)
        self.pool_slots[slot] = upload.take(pool_slots)

    def grow(self, slots: IntArray, entries: IntArray) -> None:
        """Take over from the host's table the pool slots of entries that have come to requests, one each of
        ``slots`` and ``entries``."""
        upload = Upload()
        places = upload.add(slots * self.pool_slots.shape[1] + entries)
        values = upload.add(self._table.pool_slots[slots, entries])
        upload.send(self.device)
        self.pool_slots.view(-1)[upload.take(places)] = upload.take(values)

    def writer(self, places: IntArray, tokens: NDArray[np.int32]) -> Callable[[], None]:
        """Commits tokens to the canvas when it is called, which cannot fail; not those below 0."""
        is_token, upload = tokens >= 0, Upload()
        index, values = upload.add(places[is_token]), upload.add(tokens[is_token].astype(np.int64))
        upload.send(self.device)
        index_on_device, values_on_device = upload.take(index), upload.take(values)

        def write() -> None:
            self.canvas.scatter_(0, index_on_device, values_on_device)

        return write

    def tokens(self, index: Tensor) -> Tensor:
        """What the model reads at ``index`` of the canvas; a mask token in a prompt is just a token."""
        tokens = self.canvas[index]
        return torch.where(tokens == MASKED, self._mask_token_id, tokens)
