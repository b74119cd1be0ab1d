"""Trains the embedded model: `python -m training.train --help`.

The seed and the number of steps fix the schedule and the data, whatever the number of workers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.batches import BatchArrays, Batcher
from training.decode import MODES, Mode
from training.evaluate import Evaluator, Question, load_questions, save_scores, table
from training.export import export
from training.loader import step_stream
from training.losses import LossTotals
from training.model import MaskedDiffusionModel, ModelShape
from training.muon import Muon
from training.objective import MicroBatch, diffusion_loss
from training.prepare import QUESTIONS, WORDS
from training.schedule import learning_rate_factor
from training.tasks.mixture import EARLY_UNTIL, FAMILIES, make_curriculum
from training.tokenizer import MASK, build_tokenizer, token_id
from training.words import load_words

LOG_EVERY = 50
SAVE_EVERY = 200
QUICK_MODES = (MODES[6], MODES[7])


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that shapes the weights."""

    seed: int
    sequences: int
    micro_tokens: int
    learning_rate: float
    reuse_from: float
    ema_decay: float = 0.995
    muon_momentum: float = 0.95
    weight_decay: float = 0.05
    embedding_rate: float = 0.5


class Trainer:
    """Model, optimizers and averaged weights; `advance` is one step."""

    def __init__(self, recipe: Recipe, shape: ModelShape, device: torch.device, *, is_compiled: bool) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.model = MaskedDiffusionModel(shape, is_compiled=is_compiled).to(device)
        named = list(self.model.named_parameters())
        self.matrices = Muon(
            [p for name, p in named if p.ndim == 2 and "wte" not in name],
            momentum=recipe.muon_momentum,
            weight_decay=recipe.weight_decay,
        )
        rest = [p for name, p in named if p.ndim < 2 or "wte" in name]
        self.rest = torch.optim.AdamW(rest, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.average = [p.detach().clone() for _, p in named]
        self.generator = torch.Generator(device)
        self.step = 0
        self.losses = LossTotals(FAMILIES, device)
        self.tokens = 0

    def advance(self, micro_batches: Sequence[MicroBatch], mask_token_id: int, progress: float) -> None:
        """Gradients of the whole step, then one update; `progress` is the part of training done, 0 to 1."""
        recipe, parameters = self.recipe, list(self.model.parameters())
        rows = sum(len(batch.tokens) for batch in micro_batches)
        with_reuse = progress >= recipe.reuse_from
        self.generator.manual_seed(recipe.seed * 1_000_003 + self.step)
        for batch in micro_batches:
            losses = diffusion_loss(
                self.model, batch, mask_token_id, self.generator, with_reuse=with_reuse, dtype=self.dtype
            )
            share = len(batch.tokens) / rows
            (sum(loss.mean() for loss in losses) * share).backward()  # type: ignore[union-attr]
            self.losses.add(batch.family, *losses)
            self.tokens += batch.tokens.numel()
        rate = recipe.learning_rate * learning_rate_factor(self.step, progress)
        for group in self.rest.param_groups:
            group["lr"] = rate * recipe.embedding_rate
        self.matrices.step(rate)
        self.rest.step()
        self.model.zero_grad(set_to_none=True)
        decay = min(recipe.ema_decay, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(self.average, [p.detach() for p in parameters], 1 - decay)
        self.step += 1

    def averaged_weights(self) -> dict[str, Tensor]:
        """The exponential moving average under the state dict's names."""
        return {name: a for (name, _), a in zip(self.model.named_parameters(), self.average, strict=True)}

    def save(self, path: Path) -> None:
        """All that `load` needs to continue; the file appears whole or not at all."""
        unfinished = path.with_suffix(".partial")
        torch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average,
                "matrices": self.matrices.state_dict(),
                "rest": self.rest.state_dict(),
                "step": self.step,
            },
            unfinished,
        )
        unfinished.rename(path)

    def load(self, path: Path) -> None:
        """Continues from `save`."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.matrices.load_state_dict(state["matrices"])
        self.rest.load_state_dict(state["rest"])
        self.average = state["average"]
        self.step = state["step"]


def to_device(arrays: BatchArrays, device: torch.device) -> MicroBatch:
    """Copies without waiting where the device allows."""
    tokens, rows = torch.from_numpy(arrays.tokens), torch.from_numpy(arrays.rows)
    if device.type == "cuda":
        tokens, rows = tokens.pin_memory(), rows.pin_memory()
    first, block_start, answer_end, family = rows.to(device, non_blocking=True).long()
    return MicroBatch(tokens.to(device, non_blocking=True).long(), first, block_start, answer_end, family)


def evaluate(
    trainer: Trainer, tokenizer: Tokenizer, questions: list[Question], modes: Sequence[Mode], out: Path
) -> None:
    """Scores the averaged weights, rounded to bf16 as they are exported, and prints the table."""
    model = MaskedDiffusionModel(trainer.model.shape).to(trainer.device)
    model.load_state_dict({k: v.bfloat16().float() for k, v in trainer.averaged_weights().items()})
    scores = Evaluator(tokenizer, trainer.dtype).scores(model, questions, modes)
    save_scores(scores, out)
    print(f"step {trainer.step}\n{table(scores)}", flush=True)


def train(options: argparse.Namespace, recipe: Recipe, shape: ModelShape) -> None:
    """Runs the recipe and leaves losses, scores, a checkpoint and the exported model in `options.out`."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)
    tokenizer = build_tokenizer()
    mask_token_id = token_id(tokenizer, MASK)
    every_question = load_questions(options.data / QUESTIONS, 10**9)
    held_out = frozenset(question.question for question in every_question)
    curriculum = make_curriculum(load_words(options.data / WORDS), held_out)
    batcher = Batcher(
        curriculum, tokenizer, recipe.sequences, recipe.micro_tokens, options.steps, recipe.seed
    )
    first = torch.load(options.resume, map_location="cpu", weights_only=True)["step"] if options.resume else 0
    last = min(options.steps, options.stop_at or options.steps)
    with (
        step_stream(batcher, first, last, options.workers) as stream,
        (out / "losses.jsonl").open("a") as log,
    ):
        trainer = Trainer(recipe, shape, torch.device(options.device), is_compiled=options.compile)
        if options.resume:
            trainer.load(options.resume)
        started = time.perf_counter()
        for arrays in stream:
            progress = trainer.step / options.steps
            trainer.advance([to_device(a, trainer.device) for a in arrays], mask_token_id, progress)
            if trainer.step % LOG_EVERY == 0:
                losses = trainer.losses.take()  # waits for the device, so that `seconds` counts its work
                line = {
                    "step": trainer.step,
                    "tokens": trainer.tokens,
                    "seconds": round(time.perf_counter() - started, 1),
                    "progress": round(progress, 4),
                    **losses,
                }
                log.write(json.dumps(line) + "\n")
                log.flush()
                if trainer.step % (LOG_EVERY * 2) == 0:
                    print(json.dumps(line), flush=True)
            if trainer.step % SAVE_EVERY == 0:
                trainer.save(out / "checkpoint.pt")
            if options.evaluate_every and trainer.step % options.evaluate_every == 0 and trainer.step < last:
                quick = load_questions(options.data / QUESTIONS, options.quick_questions)
                evaluate(trainer, tokenizer, quick, QUICK_MODES, out / "scores_quick.jsonl")
        trainer.save(out / "checkpoint.pt")
        export(trainer.averaged_weights(), shape, tokenizer, out / "model")
        print(f"trained {trainer.step} steps, {trainer.tokens} tokens, {time.perf_counter() - started:.0f} s")
    questions = load_questions(options.data / QUESTIONS, options.questions)
    evaluate(trainer, tokenizer, questions, MODES, out / "scores.jsonl")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path("build/training"), help="what training.prepare wrote"
    )
    parser.add_argument("--out", type=Path, default=Path("training/runs/embedded"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--stop-at", type=int, help="end before --steps, the schedule unchanged")
    parser.add_argument("--sequences", type=int, default=2560, help="examples a step")
    parser.add_argument("--micro-tokens", type=int, default=98304, help="padded tokens a forward")
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument(
        "--reuse-from", type=float, default=EARLY_UNTIL, help="part of training without the reuse loss"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    parser.add_argument("--workers", type=int, default=10, help="data processes")
    parser.add_argument("--resume", type=Path, help="a checkpoint.pt")
    parser.add_argument("--evaluate-every", type=int, default=0, help="steps; 0: only at the end")
    parser.add_argument("--quick-questions", type=int, default=50, help="a family, at --evaluate-every")
    parser.add_argument("--questions", type=int, default=200, help="a family, at the end")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=384)
    options = parser.parse_args()
    names = ("seed", "sequences", "micro_tokens", "learning_rate", "reuse_from")
    recipe = Recipe(**{name: getattr(options, name) for name in names})
    shape = ModelShape(d_model=options.width, n_heads=options.width // 64, n_layers=options.layers)
    train(options, recipe, shape)


if __name__ == "__main__":
    main()
