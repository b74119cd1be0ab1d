import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from dllm_server.evaluation.words import words_from_reasoning_gym
from torch import Tensor

from training.batches import BatchArrays, Batcher
from training.curve import draw
from training.losses import LossTotals
from training.model import ModelShape
from training.objective import block_loss, diffusion_loss
from training.tasks.mixture import FAMILIES, make_curriculum
from training.tokenizer import MASK, build_tokenizer, token_id
from training.train import Recipe, Trainer, to_device

CPU = torch.device("cpu")
NAMES = ("chain_sum", "recall", "small_talk")


def make_losses(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Families, of the first two names alone, and refresh and reuse losses."""
    generator = torch.Generator().manual_seed(seed)
    family = torch.randint(0, 2, (rows,), generator=generator)
    return family, torch.rand(rows, generator=generator), torch.rand(rows, generator=generator)


def make_step() -> list[BatchArrays]:
    curriculum = make_curriculum(words_from_reasoning_gym())
    return Batcher(curriculum, build_tokenizer(), sequences=16, micro_tokens=2_048, steps=2, seed=1).step(1)


def make_trainer() -> Trainer:
    recipe = Recipe(seed=1, sequences=16, micro_tokens=2_048, learning_rate=4e-3, early_until=0.3)
    return Trainer(recipe, ModelShape(d_model=64, n_heads=1, n_layers=2), CPU, is_compiled=False)


def test_a_row_without_masked_tokens_has_no_loss() -> None:
    is_masked = torch.tensor([[True, False], [False, False]])

    losses = block_loss(
        torch.zeros(2, 2, 8), torch.zeros(2, 2, dtype=torch.int64), is_masked, torch.ones(2, 2)
    )

    torch.testing.assert_close(losses, torch.tensor([math.log(8), 0.0]))


def test_a_familys_loss_is_the_mean_over_its_rows_in_all_micro_batches() -> None:
    parts = [make_losses(7, seed=1), make_losses(20, seed=2)]
    totals = LossTotals(NAMES, CPU)

    for part in parts:
        totals.add(*part)
    line = totals.take()

    family, refresh, reuse = (torch.cat(column) for column in zip(*parts, strict=True))
    for index, name in enumerate(NAMES[:2]):
        assert line["families"][name] == pytest.approx(refresh[family == index].mean().item(), abs=1e-5)
        assert line["families_reuse"][name] == pytest.approx(reuse[family == index].mean().item(), abs=1e-5)


def test_the_families_losses_weighted_by_their_rows_are_the_whole_loss() -> None:
    family, refresh, reuse = make_losses(50)
    totals = LossTotals(NAMES, CPU)

    totals.add(family, refresh, reuse)
    line = totals.take()

    rows = {name: (family == index).sum().item() for index, name in enumerate(NAMES)}
    for whole, parts in (("refresh_loss", "families"), ("reuse_loss", "families_reuse")):
        weighted = sum(loss * rows[name] for name, loss in line[parts].items()) / 50
        assert weighted == pytest.approx(line[whole], abs=2e-5)


def test_a_family_without_rows_is_left_out() -> None:
    totals = LossTotals(NAMES, CPU)
    totals.add(*make_losses(9))

    assert list(totals.take()["families"]) == ["chain_sum", "recall"]


def test_taking_begins_anew() -> None:
    totals, later = LossTotals(NAMES, CPU), LossTotals(NAMES, CPU)
    totals.add(*make_losses(9, seed=1))
    totals.take()

    for each in (totals, later):
        each.add(*make_losses(9, seed=2))

    assert totals.take() == later.take()


def test_a_step_logs_the_losses_that_it_trains_on() -> None:
    arrays, mask = make_step(), token_id(build_tokenizer(), MASK)
    batches = [to_device(a, CPU) for a in arrays]
    trainer, twin = make_trainer(), make_trainer()
    generator = torch.Generator().manual_seed(twin.recipe.seed * 1_000_003)
    rows = [
        diffusion_loss(twin.model, batch, mask, generator, with_reuse=True, dtype=torch.float32)
        for batch in batches
    ]

    trainer.advance(batches, mask, progress=0.5)
    line = trainer.losses.take()

    refresh, reuse = (torch.cat(column) for column in zip(*rows, strict=True))
    drawn = np.unique(np.concatenate([a.rows[3] for a in arrays]))
    assert len(batches) > 1
    assert line["refresh_loss"] == pytest.approx(refresh.mean().item(), abs=2e-5)
    assert line["reuse_loss"] == pytest.approx(reuse.mean().item(), abs=2e-5)
    assert list(line["families"]) == [FAMILIES[index] for index in drawn]


def test_what_is_logged_does_not_change_the_weights() -> None:
    arrays, mask = make_step(), token_id(build_tokenizer(), MASK)
    trainer, relabelled = make_trainer(), make_trainer()

    trainer.advance([to_device(a, CPU) for a in arrays], mask, progress=0.5)
    for a in arrays:
        a.rows[3] = 0
    relabelled.advance([to_device(a, CPU) for a in arrays], mask, progress=0.5)

    pairs = zip(trainer.model.parameters(), relabelled.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("families", [{}, {"families": {"recall": 0.5, "chain_sum": 0.1}}])
def test_a_curve_is_drawn_with_and_without_families(families: dict[str, object], tmp_path: Path) -> None:
    lines = [{"step": step, "refresh_loss": 1.0, "reuse_loss": 0.0, **families} for step in (50, 100)]
    log = tmp_path / "losses.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))

    draw(log, tmp_path / "losses.png")

    width = int.from_bytes((tmp_path / "losses.png").read_bytes()[16:20], "big")
    assert width == 770 * (2 if families else 1)
