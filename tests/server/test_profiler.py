from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from checkpoints import Size, make_checkpoint
from dllm_server.engine.device.profiler import measure
from dllm_server.engine.process import startup
from dllm_server.memory import EngineLimits
from dllm_server.models.loader import load_model
from dllm_server.models.registry import Checkpoint, open_checkpoint
from dllm_server.models.transformer import Transformer
from engines import make_request, make_settings, run_alone

BYTES_A_ROW = 100


class MeteredModel(Transformer):
    """A model on a device that holds ``most_rows`` of a forward pass, each of ``BYTES_A_ROW``."""

    most_rows = 10**9
    rows = 0
    total_bytes = 10**9

    def forward(self, token_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(token_ids) > self.most_rows:
            raise torch.OutOfMemoryError("injected")
        self.rows = len(token_ids)
        return super().forward(token_ids, *rest)

    def used_bytes(self) -> int:
        return 0

    def peak_bytes(self) -> int:
        return self.rows * BYTES_A_ROW

    def reset_peak(self) -> None:
        self.rows = 0


def make_model(directory: Path, *, most_rows: int = 10**9, size: Size | None = None) -> MeteredModel:
    model = load_model(
        open_checkpoint(make_checkpoint(directory, size or Size())), torch.device("cpu"), torch.float32
    )
    model.__class__ = MeteredModel
    assert isinstance(model, MeteredModel)
    model.most_rows = most_rows
    return model


def make_limits(*, length: int = 128, tokens: int = 512, block: int = 8, ratio: float = 1.0) -> EngineLimits:
    return EngineLimits(length, tokens, 16, 64, block, ratio, 4)


@pytest.mark.parametrize("length", [128, 100, 65, 33, 2, 1])
@pytest.mark.parametrize("tokens", [128, 130, 512])
def test_a_full_step_is_measured_whatever_the_longest_sequence(
    tmp_path: Path, length: int, tokens: int
) -> None:
    model = make_model(tmp_path)

    profile = measure(model, model, make_limits(length=length, tokens=tokens, block=1))

    assert profile.activations_bytes == pytest.approx(tokens * BYTES_A_ROW * 1.05, rel=0.01)
    assert profile.oom_events == 0


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("ratio", [1.0, 0.01])
@pytest.mark.parametrize("block", [1, 8, 127, 128])
def test_any_block_and_ratio_can_be_measured(tmp_path: Path, family: str, ratio: float, block: int) -> None:
    model = make_model(tmp_path, size=Size(family=family))

    assert measure(model, model, make_limits(block=block, ratio=ratio)).tokens == 512


def test_a_device_that_refuses_is_asked_for_half_and_the_result_scaled(tmp_path: Path) -> None:
    model = make_model(tmp_path, most_rows=200)

    profile = measure(model, model, make_limits())

    assert (profile.tokens, profile.oom_events) == (128, 2)
    assert profile.activations_bytes == pytest.approx(512 * BYTES_A_ROW * 1.05, rel=0.01)


def test_a_device_that_refuses_everything_raises_out_of_memory(tmp_path: Path) -> None:
    model = make_model(tmp_path, most_rows=0)

    with pytest.raises(torch.OutOfMemoryError):
        measure(model, model, make_limits())


def test_an_engine_reports_the_refusals_of_its_profile_and_serves(tmp_path: Path) -> None:
    def load_small(checkpoint: Checkpoint, *_: Any, **__: Any) -> MeteredModel:
        return make_model(checkpoint.directory, most_rows=200)

    with patch.object(startup, "load_model", load_small):
        started = startup.start(make_settings(make_checkpoint(tmp_path)))

    assert started.engine.stats.oom["profile"] == started.profile.oom_events == 2
    assert len(run_alone(started.engine, make_request()).tokens) == 16
