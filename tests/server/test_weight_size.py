from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import Size, make_checkpoint
from dllm_server.models.loader import load_model
from dllm_server.models.registry import open_checkpoint

SIZES = [
    Size(),
    Size(n_kv_heads=2),
    Size(is_tied=True),
    Size(family="dream", n_kv_heads=1),
    Size(family="dream", is_tied=True),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_weights_that_dllm_plan_foretells_are_those_that_are_loaded(
    tmp_path: Path, size: Size, dtype: torch.dtype
) -> None:
    checkpoint = open_checkpoint(make_checkpoint(tmp_path, size))

    foretold = checkpoint.config.shape("tiny", dtype.itemsize).weights_bytes
    loaded = load_model(checkpoint, torch.device("cpu"), dtype).weights.values()

    assert foretold == sum(weight.nbytes for weight in loaded)
