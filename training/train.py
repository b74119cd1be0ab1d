"""Trains the embedded model: `python -m training.train --help`.

The seed and the number of steps fix the schedule and the data, whatever the number of workers and of parts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from dllm_server.evaluation.words import load_words
from torch import Tensor

from training.batches import BatchArrays, Batcher
from training.evaluate import Evaluator, load_questions, save_scores, score
from training.export import export, weights_of
from training.loader import step_stream
from training.losses import LossTotals
from training.model import MaskedDiffusionModel, ModelShape
from training.muon import Muon
from training.objective import MicroBatch, diffusion_loss
from training.prepare import QUESTIONS, WORDS
from training.schedule import learning_rate_factor
from training.tasks.mixture import EARLY_UNTIL, FAMILIES, make_curriculum
from training.tokenizer import MASK, build_tokenizer, token_id

LOG_EVERY = 50
SAVE_EVERY = 200
SCORES_SECONDS = 120.0  # that they take at the end, with room to spare
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that shapes the weights."""

    seed: int
    sequences: int
    micro_tokens: int
    learning_rate: float
    early_until: float
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
        self.seconds = 0.0

    def advance(self, micro_batches: Sequence[MicroBatch], mask_token_id: int, progress: float) -> None:
        """Gradients of the whole step, then one update; `progress` is the part of training done, 0 to 1."""
        recipe, parameters = self.recipe, list(self.model.parameters())
        rows = sum(len(batch.tokens) for batch in micro_batches)
        with_reuse = progress >= recipe.early_until
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

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Takes the weights of an exported model, in place of random ones."""
        self.model.load_state_dict(weights)
        self.average = [p.detach().clone() for p in self.model.parameters()]

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
                "tokens": self.tokens,
                "seconds": self.seconds,
                "losses": self.losses.sums,
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
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        self.losses.sums = state["losses"]


def to_device(arrays: BatchArrays, device: torch.device) -> MicroBatch:
    """Copies without waiting where the device allows."""
    tokens, rows = torch.from_numpy(arrays.tokens), torch.from_numpy(arrays.rows)
    if device.type == "cuda":
        tokens, rows = tokens.pin_memory(), rows.pin_memory()
    first, block_start, answer_end, family = rows.to(device, non_blocking=True).long()
    return MicroBatch(tokens.to(device, non_blocking=True).long(), first, block_start, answer_end, family)


def train(options: argparse.Namespace, recipe: Recipe, shape: ModelShape) -> None:
    """Runs the recipe, or goes on with what `options.out` holds of it, until it is done or the time is over.

    At the end `options.out` has losses, scores, a checkpoint and the exported model.
    """
    began = time.perf_counter()
    out: Path = options.out
    checkpoint, log_file = out / CHECKPOINT, out / "losses.jsonl"
    _check_recipe(
        out, {**asdict(recipe), **asdict(shape), "steps": options.steps, "weights": str(options.weights)}
    )
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)
    tokenizer = build_tokenizer()
    mask_token_id = token_id(tokenizer, MASK)
    every_question = load_questions(options.data / QUESTIONS, 10**9)
    held_out = frozenset(question.question for question in every_question)
    curriculum = make_curriculum(load_words(options.data / WORDS), held_out, recipe.early_until)
    batcher = Batcher(
        curriculum, tokenizer, recipe.sequences, recipe.micro_tokens, options.steps, recipe.seed
    )
    # Read before the workers are forked, which must not know of CUDA.
    first = (
        torch.load(checkpoint, map_location="cpu", weights_only=True)["step"] if checkpoint.exists() else 0
    )
    _forget_after(first, log_file)
    with step_stream(batcher, first, options.steps, options.workers) as stream, log_file.open("a") as log:
        trainer = Trainer(recipe, shape, torch.device(options.device), is_compiled=options.compile)
        if checkpoint.exists():
            trainer.load(checkpoint)
        elif options.weights is not None:
            trainer.begin_from(weights_of(options.weights, tokenizer))
        earlier, started = trainer.seconds, time.perf_counter()
        for arrays in stream:
            progress = trainer.step / options.steps
            trainer.advance([to_device(a, trainer.device) for a in arrays], mask_token_id, progress)
            if trainer.step % LOG_EVERY == 0:
                losses = trainer.losses.take()  # waits for the device, so that `seconds` counts its work
                trainer.seconds = earlier + time.perf_counter() - started
                line = {
                    "step": trainer.step,
                    "tokens": trainer.tokens,
                    "seconds": round(trainer.seconds, 1),
                    "progress": round(progress, 4),
                    **losses,
                }
                log.write(json.dumps(line) + "\n")
                log.flush()
                if trainer.step % (LOG_EVERY * 2) == 0:
                    print(json.dumps(line), flush=True)
            is_over = options.seconds is not None and time.perf_counter() - began > options.seconds
            if trainer.step % SAVE_EVERY == 0 or is_over:
                trainer.seconds = earlier + time.perf_counter() - started
                trainer.save(checkpoint)
            if is_over and trainer.step < options.steps:
                print(
                    f"stopped at step {trainer.step} of {options.steps}: the same command goes on", flush=True
                )
                return
        trainer.save(checkpoint)
    has_trained, elapsed = first < options.steps, time.perf_counter() - began
    if options.seconds is not None and has_trained and elapsed > options.seconds - SCORES_SECONDS:
        print("stopped before the scores: the same command goes on", flush=True)
        return
    export(trainer.averaged_weights(), shape, tokenizer, out / "model")
    print(f"trained {trainer.step} steps, {trainer.tokens} tokens, {trainer.seconds:.0f} s", flush=True)
    questions = load_questions(options.data / QUESTIONS, options.questions)
    model = exported_model(trainer)
    save_scores(score(model, Evaluator(tokenizer, trainer.dtype), questions), out / "scores.jsonl")


def exported_model(trainer: Trainer) -> MaskedDiffusionModel:
    """The averaged weights, rounded to bf16 as they are exported."""
    model = MaskedDiffusionModel(trainer.model.shape).to(trainer.device)
    model.load_state_dict({k: v.bfloat16().float() for k, v in trainer.averaged_weights().items()})
    return model


def _check_recipe(out: Path, recipe: dict[str, object]) -> None:
    """Raises ValueError where `out` holds a run of another recipe."""
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "recipe.json"
    text = json.dumps(recipe, indent=1) + "\n"
    if kept.exists() and kept.read_text(encoding="utf-8") != text:
        raise ValueError(f"{out} holds a run of another recipe ({kept}): remove it or name another --out")
    kept.write_text(text, encoding="utf-8")


def _forget_after(step: int, log_file: Path) -> None:
    """Drops the log's lines of steps that will be made again."""
    if log_file.exists():
        lines = log_file.read_text(encoding="utf-8").splitlines(keepends=True)
        log_file.write_text("".join(x for x in lines if json.loads(x)["step"] <= step), encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path("build/training"), help="what training.prepare wrote"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("training/runs/embedded"), help="a run that it holds goes on"
    )
    parser.add_argument(
        "--weights", type=Path, help="a model's folder to begin from; random weights if unset"
    )
    parser.add_argument("--seconds", type=float, help="stop after so long; the same command goes on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--sequences", type=int, default=2560, help="examples a step")
    parser.add_argument("--micro-tokens", type=int, default=98304, help="padded tokens a forward")
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument(
        "--early-until",
        type=float,
        default=EARLY_UNTIL,
        help="part of training without the reuse loss, and with short lists to recall",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    parser.add_argument("--workers", type=int, default=14, help="data processes")
    parser.add_argument("--questions", type=int, default=200, help="a family and wording, at the end")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=384)
    options = parser.parse_args()
    names = ("seed", "sequences", "micro_tokens", "learning_rate", "early_until")
    recipe = Recipe(**{name: getattr(options, name) for name in names})
    shape = ModelShape(d_model=options.width, n_heads=options.width // 64, n_layers=options.layers)
    train(options, recipe, shape)


if __name__ == "__main__":
    main()
