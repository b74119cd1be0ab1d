"""Accuracy and committed tokens a forward, per family and decoding mode, by exact match."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from training.decode import MODES, Decoded, Mode, decode
from training.model import MaskedDiffusionModel
from training.tokenizer import END_OF_TEXT, MASK, render_prompt, token_id


@dataclass(frozen=True, slots=True)
class Question:
    """A held-out question as `prepare` wrote it."""

    family: str
    question: str
    answer: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Score:
    """`tokens_per_forward` counts committed tokens of answers of eight tokens or more, zero without any."""

    family: str
    mode: str
    accuracy: float
    tokens_per_forward: float
    questions: int


def load_questions(path: Path, per_family: int) -> list[Question]:
    """At most `per_family` questions of every family, in file order."""
    taken: dict[str, list[Question]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        question = Question(**json.loads(line))
        if len(taken[question.family]) < per_family:
            taken[question.family].append(question)
    return [question for family in taken.values() for question in family]


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
        prompts = [self.tokenizer.encode(render_prompt(question.question)).ids for question in questions]
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
        """Every family in every mode."""
        scores = []
        for mode in modes:
            decoded = self.answers(model, questions, mode)
            families: dict[str, list[tuple[Question, Decoded]]] = defaultdict(list)
            for question, answer in zip(questions, decoded, strict=True):
                families[question.family].append((question, answer))
            for family, pairs in families.items():
                right = sum(
                    self.tokenizer.decode(answer.tokens) == question.answer for question, answer in pairs
                )
                long = [answer for _, answer in pairs if len(answer.tokens) >= 8]
                forwards = sum(answer.forwards for answer in long)
                rate = sum(answer.committed for answer in long) / forwards if forwards else 0.0
                scores.append(Score(family, mode.name, right / len(pairs), rate, len(pairs)))
        return scores


def table(scores: Sequence[Score]) -> str:
    """Rows are families; a cell is accuracy in per cent and committed tokens a forward."""
    modes = list(dict.fromkeys(score.mode for score in scores))
    families = list(dict.fromkeys(score.family for score in scores))
    cells = {(s.family, s.mode): f"{100 * s.accuracy:5.1f} ({s.tokens_per_forward:4.1f})" for s in scores}
    lines = [" " * 23 + " ".join(f"{mode:>15}" for mode in modes)]
    lines += [
        f"{family:23}" + " ".join(f"{cells[family, mode]:>15}" for mode in modes) for family in families
    ]
    return "\n".join(lines)


def save_scores(scores: Sequence[Score], path: Path) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(asdict(score)) + "\n" for score in scores), encoding="utf-8")
