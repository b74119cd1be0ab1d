"""Asking for a GPU where there is none names what helps: another image, or the driver."""

from __future__ import annotations

import pytest
import torch
from dllm_server.engine.process.startup import DeviceError, pick_device
from dllm_server.settings import Device


@pytest.mark.parametrize(
    ("built_for", "remedy"),
    [(None, "use an image built with DEVICE=cuda"), ("13.0", "check the driver and that the container")],
)
def test_a_gpu_that_is_not_there(built_for: str | None, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(DeviceError, match=remedy):
        pick_device(Device.CUDA)
