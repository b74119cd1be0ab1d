"""Greedy answers of the embedded model on the GPU against a CPU's.

The CPU's were written to a file beforehand: the verifiers of the questions need not be where the GPU is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dllm_server.engine.process.offline import complete
from dllm_server.engine.process.startup import start
from dllm_server.engine.requests.messages import Diffusion, Generate, Sampling
from dllm_server.evaluation.modes import MODES
from dllm_server.evaluation.tasks import Family, make_items
from dllm_server.models.source import EMBEDDED_DIRECTORY
from dllm_server.models.tokenizer import load_tokenizer
from dllm_server.settings import EngineSettings
from rich.console import Console

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult, Target

REFERENCE = Path(__file__).resolve().parents[1] / "results" / "agreement_reference.json"
QUESTIONS = 50  # a family
REFERENCE_MODES = ("refresh-per-block", "retention-0.5")
SETTINGS: dict[str, Any] = {"model": "embedded", "max_num_seqs": 64, "max_num_batched_tokens": 4096}
AGREE = Target(9, 0.99)
UNCHANGED = Target(9, 0.01, is_ceiling=True)


@dataclass(frozen=True, slots=True)
class Question:
    """``answers`` and ``is_correct`` by mode are the CPU's, in float32."""

    family: str
    text: str
    expected: str
    max_tokens: int
    answers: dict[str, str]
    is_correct: dict[str, bool]


def run(bench: Bench, result: PartResult) -> None:
    """float32 and bfloat16; a tiny run asks a few questions of the CPU again."""
    questions = read_reference(REFERENCE)
    if bench.scale.is_tiny:
        questions = questions[:: max(len(questions) // 5, 1)]
    bench.release()
    for dtype in ("float32", "bfloat16"):
        answers = ask(questions, bench.scale.agreement_modes, bench.scale.settings["device"], dtype)
        for mode, given in answers.items():
            _compare(questions, mode, dtype, given, result)
            bench.say(f"{dtype}, {mode}: {result.figures[-2].value:.2%} equal")
        bench.release()


def write_reference(console: Console, most_questions: int | None = None) -> None:
    """Ask the CPU in float32 and write its answers; needs the verifiers' package."""
    asked = [family for family in Family if family is not Family.TOOL_CALLS]  # tools are not given here
    items = [item for family in asked for item in make_items(family, most_questions or QUESTIONS)]
    questions = [
        Question(item.family.value, item.question, item.answer, item.max_tokens, {}, {}) for item in items
    ]
    answers = ask(questions, REFERENCE_MODES, "cpu", "float32")
    for mode, given in answers.items():
        for item, question, answer in zip(items, questions, given, strict=True):
            question.answers[mode] = answer
            question.is_correct[mode] = item.check(answer)
        correct = sum(question.is_correct[mode] for question in questions)
        console.print(f"{mode}: {correct} of {len(questions)} correct on the CPU")
    if most_questions is not None:
        return
    rows = [[q.family, q.text, q.expected, q.max_tokens, q.answers, q.is_correct] for q in questions]
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    REFERENCE.write_text(f"[\n{lines}\n]\n")
    console.print(f"written to {REFERENCE}")


def read_reference(path: Path) -> list[Question]:
    """``FileNotFoundError`` names the command that writes it."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: run python -m benchmarks.gpu --part agreement-reference on a CPU"
        )
    return [Question(*row) for row in json.loads(path.read_text())]


def ask(questions: Sequence[Question], modes: Sequence[str], device: str, dtype: str) -> dict[str, list[str]]:
    """Answers by mode, in the questions' order; one engine for all modes."""
    tokenizer = load_tokenizer(EMBEDDED_DIRECTORY)
    settings = EngineSettings.model_validate(SETTINGS | {"device": device, "dtype": dtype})
    engine = start(settings).engine
    by_name = {mode.name: mode for mode in MODES}
    prompts = [tokenizer.encode_chat([{"role": "user", "content": question.text}]) for question in questions]
    answers, stops = {}, list(engine.runner.model.config.eos_token_ids)
    for name in modes:
        diffusion = Diffusion.of(by_name[name].diffusion(settings.block_length))
        requests = [
            Generate(f"{name}-{index}", prompt, question.max_tokens, Sampling(), diffusion, stops)
            for index, (prompt, question) in enumerate(zip(prompts, questions, strict=True))
        ]
        answers[name] = [tokenizer.decode(done.token_ids) for done in complete(engine, requests)]
    del engine
    if device == "cuda":
        torch.cuda.empty_cache()
    return answers


def _compare(
    questions: Sequence[Question], mode: str, dtype: str, answers: Sequence[str], result: PartResult
) -> None:
    """An answer that differs counts as correct only when it is literally the expected one."""
    pairs = list(zip(questions, answers, strict=True))
    equal = [question.answers[mode] == answer for question, answer in pairs]
    correct = [
        question.is_correct[mode] if same else answer.strip() == question.expected.strip()
        for same, (question, answer) in zip(equal, pairs, strict=True)
    ]
    cpu_accuracy = sum(question.is_correct[mode] for question in questions) / len(questions)
    accuracy = sum(correct) / len(questions)
    note = f"{len(questions)} questions; accuracy {accuracy:.1%}, on the CPU {cpu_accuracy:.1%}"
    result.add(f"{dtype}, {mode}: answers equal", sum(equal) / len(equal), "share", AGREE, note)
    result.add(f"{dtype}, {mode}: accuracy lost", cpu_accuracy - accuracy, "share", UNCHANGED, note)
    result.data[f"{dtype}, {mode}"] = {
        "accuracy": accuracy,
        "cpu_accuracy": cpu_accuracy,
        "different": [
            {"family": question.family, "cpu": question.answers[mode], "gpu": answer}
            for same, (question, answer) in zip(equal, pairs, strict=True)
            if not same
        ],
    }
