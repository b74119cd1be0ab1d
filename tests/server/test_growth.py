"""Pages that come to running requests reach the device, whatever happens on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dllm_kernels.layout import IntArray
from dllm_server.engine.schedule.course import Growth


def test_what_the_device_had_no_memory_to_take_is_told_again_with_what_came_meanwhile() -> None:
    growth, told = Growth([np.array([1])], [np.array([[1, 2]])]), list[tuple[IntArray, IntArray]]()

    def refuse(slots: IntArray, entries: IntArray) -> None:
        raise torch.OutOfMemoryError("injected")

    with pytest.raises(torch.OutOfMemoryError):
        growth.tell(refuse)
    growth.slots.append(np.array([4]))
    growth.entries.append(np.array([[7, 8]]))
    growth.tell(lambda slots, entries: told.append((slots, entries)))
    growth.tell(refuse)  # nothing is left

    ((slots, entries),) = told
    assert slots.tolist() == [1, 4]
    assert entries.tolist() == [[1, 2], [7, 8]]
