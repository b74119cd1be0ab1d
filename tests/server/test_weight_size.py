from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import Size, make_checkpoint
from dllm_server.memory import GIB
from dllm_server.models.loader import load_model
from dllm_server.models.registry import open_checkpoint
from dllm_server.models.transformer import Transformer
from engines import FIXTURES
from public_configs import PUBLIC, PublicModel

SIZES = [
    Size(),
    Size(n_kv_heads=2),
    Size(is_tied=True),
    Size(family="dream", n_kv_heads=1),
    Size(family="dream", is_tied=True),
]
DTYPES = [torch.float32, torch.bfloat16]
CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_weights_that_dllm_plan_foretells_are_those_that_are_loaded(
    tmp_path: Path, size: Size, dtype: torch.dtype
) -> None:
    checkpoint = open_checkpoint(make_checkpoint(tmp_path, size))

    foretold = checkpoint.config.shape("tiny", dtype.itemsize).weights_bytes

    assert foretold == load_model(checkpoint, CPU, dtype).weights_bytes


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fixture", sorted(path.name for path in FIXTURES.iterdir() if path.is_dir()))
def test_so_are_those_of_every_family(fixture: str, dtype: torch.dtype) -> None:
    checkpoint = open_checkpoint(FIXTURES / fixture)

    foretold = checkpoint.config.shape("tiny", dtype.itemsize).weights_bytes

    assert foretold == load_model(checkpoint, CPU, dtype).weights_bytes


@pytest.mark.parametrize("model", PUBLIC.values(), ids=PUBLIC)
def test_public_models_have_the_parameters_of_their_cards_and_the_bytes_foretold(model: PublicModel) -> None:
    config = model.parse()
    shape = config.shape("public", 2)

    allocated = Transformer(config, torch.device("meta"), torch.bfloat16).weights_bytes

    assert shape.parameters / 1e9 == pytest.approx(model.billions, rel=0.005)
    assert shape.weights_bytes == allocated


def test_llada2_mini_fits_a_card_of_40_gib_and_flash_none_of_80() -> None:
    sizes = {name: model.parse().shape(name, 2).weights_bytes / GIB for name, model in PUBLIC.items()}

    assert sizes["LLaDA2.1-mini"] == pytest.approx(30.3, abs=0.1)
    assert sizes["LLaDA2.1-flash"] == pytest.approx(191.7, abs=0.5)
