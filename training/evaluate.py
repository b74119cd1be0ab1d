"""Accuracy and committed tokens a forward, per family and decoding mode, by exact match."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from dllm_server.evaluation.wording import Wording
from tokenizers import Tokenizer

from training.decode import MODES, Decoded, Mode, decode
from training.export import load_model
from training.model import MaskedDiffusionModel
from training.prepare import QUESTIONS
from training.tokenizer import END_OF_TEXT, MASK, render_prompt, token_id

REWORDED_MODES = (MODES[0], MODES[6])


@dataclass(frozen=True, slots=True)
class Question:
    """A held-out question as `prepare` wrote it."""

    family: str
    question: str
    answer: str
    max_tokens: int
    wording: str = Wording.ORIGINAL.value
    tools: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """`tokens_per_forward` counts committed tokens of answers of eight tokens or more, zero without any."""

    family: str
    mode: str
    accuracy: float
    tokens_per_forward: float
    questions: int
    wording: str = Wording.ORIGINAL.value


def load_questions(path: Path, per_family: int) -> list[Question]:
    """At most `per_family` questions of every family and wording, in file order."""
    taken: dict[tuple[str, str], list[Question]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        question = Question(**json.loads(line))
        if len(taken[question.wording, question.family]) < per_family:
            taken[question.wording, question.family].append(question)
    return [question for questions in taken.values() for question in questions]


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Decodes batches of one canvas length, shortest prompts first."""

    tokenizer: Tokenizer
    dtype: torch.dtype
    batch: int = 256

    def answers(
        self, model: MaskedDiffusionModel, questions: Sequence[Question], mode: Mode
    ) -> list[Decoded]:
        """One decoded answer a question, in order."""
        prompts = [
            self.tokenizer.encode(render_prompt(question.question, tools=question.tools)).ids
            for question in questions
        ]
        order = sorted(range(len(prompts)), key=lambda i: (questions[i].max_tokens, len(prompts[i])))
        decoded: dict[int, Decoded] = {}
        while order:
            canvas = questions[order[0]].max_tokens
            chunk = [i for i in order[: self.batch] if questions[i].max_tokens == canvas]
            order = order[len(chunk) :]
            results = decode(
                model,
                [prompts[i] for i in chunk],
                canvas,
                mode,
                mask_token_id=token_id(self.tokenizer, MASK),
                eos_token_id=token_id(self.tokenizer, END_OF_TEXT),
                dtype=self.dtype,
            )
            decoded.update(zip(chunk, results, strict=True))
        return [decoded[i] for i in range(len(questions))]

    def scores(
        self, model: MaskedDiffusionModel, questions: Sequence[Question], modes: Sequence[Mode] = MODES
    ) -> list[Score]:
        """Every family and wording in every mode."""
        scores = []
        for mode in modes:
            decoded = self.answers(model, questions, mode)
            families: dict[tuple[str, str], list[tuple[Question, Decoded]]] = defaultdict(list)
            for question, answer in zip(questions, decoded, strict=True):
                families[question.family, question.wording].append((question, answer))
            for (family, wording), pairs in families.items():
                right = sum(
                    self.tokenizer.decode(answer.tokens, skip_special_tokens=False) == question.answer
                    for question, answer in pairs
                )
                long = [answer for _, answer in pairs if len(answer.tokens) >= 8]
                forwards = sum(answer.forwards for answer in long)
                rate = sum(answer.committed for answer in long) / forwards if forwards else 0.0
                scores.append(Score(family, mode.name, right / len(pairs), rate, len(pairs), wording))
        return scores


def table(scores: Sequence[Score]) -> str:
    """Rows are families by wording; a cell is accuracy in per cent and committed tokens a forward."""
    modes = list(dict.fromkeys(score.mode for score in scores))
    rows = list(dict.fromkeys((score.family, score.wording) for score in scores))
    cells = {
        (s.family, s.wording, s.mode): f"{100 * s.accuracy:5.1f} ({s.tokens_per_forward:4.1f})"
        for s in scores
    }
    lines = [" " * 32 + " ".join(f"{mode:>16}" for mode in modes)]
    for family, wording in rows:
        shown = " ".join(f"{cells.get((family, wording, mode), ''):>16}" for mode in modes)
        lines.append(f"{family:23}{wording:9}{shown}")
    return "\n".join(lines)


def score(
    model: MaskedDiffusionModel,
    evaluator: Evaluator,
    questions: Sequence[Question],
    modes: Sequence[Mode] = MODES,
) -> list[Score]:
    """The original questions in every mode, the others in those of REWORDED_MODES; prints a table of each."""
    scores: list[Score] = []
    for is_original in (True, False):
        asked = [one for one in questions if (one.wording == Wording.ORIGINAL) == is_original]
        used = [mode for mode in modes if is_original or mode in REWORDED_MODES]
        if asked:
            found = evaluator.scores(model, asked, used)
            print(table(found), flush=True)
            scores += found
    for wording, mode in product(Wording, modes):
        if any(one.wording == wording and one.mode == mode.name for one in scores):
            print(f"{wording}, {mode.name}: {mean_accuracy(scores, wording, mode.name):.1%} on average")
    return scores


def mean_accuracy(scores: Sequence[Score], wording: Wording, mode: str) -> float:
    """Of all families alike, 0 to 1."""
    chosen = [score.accuracy for score in scores if score.wording == wording and score.mode == mode]
    return sum(chosen) / len(chosen)


def save_scores(scores: Sequence[Score], path: Path) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(asdict(score)) + "\n" for score in scores), encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Scores an exported model: `python -m training.evaluate`.")
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "--data", type=Path, default=Path("build/training"), help="what training.prepare wrote"
    )
    parser.add_argument("--out", type=Path, help="scores as JSON lines")
    parser.add_argument("--questions", type=int, default=200, help="a family and wording")
    parser.add_argument("--wording", type=Wording, action="append", choices=list(Wording))
    parser.add_argument("--mode", action="append", choices=[mode.name for mode in MODES])
    parser.add_argument("--batch", type=int, default=256, help="questions that are answered at once")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    model = load_model(options.model, tokenizer).to(options.device)
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    questions = load_questions(options.data / QUESTIONS, options.questions)
    asked = [question for question in questions if question.wording in (options.wording or Wording)]
    modes = [mode for mode in MODES if options.mode is None or mode.name in options.mode]
    scores = score(model, Evaluator(tokenizer, dtype, options.batch), asked, modes)
    if options.out is not None:
        save_scores(scores, options.out)


if __name__ == "__main__":
    main()
