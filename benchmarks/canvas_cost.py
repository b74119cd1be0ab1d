"""``python -m benchmarks.canvas_cost``: CPU time that canvases of 64 requests take of the engine's steps, and
canvas events of the API process. CPU time, so that other work on the machine matters little."""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dllm_server.engine.engine as engine_module
import msgspec
import structlog
from dllm_server.api.answers.answer import AnswerHeader
from dllm_server.api.answers.choice import canvas_of
from dllm_server.api.routes.event_stream import canvas_frame
from dllm_server.engine.process.startup import start
from dllm_server.engine.requests.messages import CanvasUpdate, Diffusion, Generate, Sampling
from dllm_server.models.source import EMBEDDED_DIRECTORY
from dllm_server.models.tokenizer import load_tokenizer
from dllm_server.settings import DiffusionSettings, EngineSettings
from rich.console import Console
from rich.table import Table

from benchmarks.api_load import FIXTURE

RESULT = Path(__file__).parent / "results" / "canvas_cost.json"
REQUESTS, TOKENS, ROUNDS = 64, 64, 5
STEP_MILLISECONDS = 1e3 * 64 / 846  # of 64 requests at LLaDA-8B's shapes on an H100, a token a step: README


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU milliseconds a step of 64 requests, and CPU microseconds an event."""

    has_confidence: bool
    engine_step_milliseconds: float
    api_event_microseconds: float


class Stopwatch:
    """CPU time inside the functions of a module that it has replaced."""

    def __init__(self, module: Any, *names: str) -> None:
        self.seconds = 0.0
        for name in names:
            setattr(module, name, self._timed(getattr(module, name)))

    def _timed(self, function: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            began = time.process_time()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.process_time() - began

        return timed


def request(number: int, *, has_confidence: bool) -> Generate:
    settings = DiffusionSettings.model_validate({"unmasking": {"strategy": "quota"}})
    return Generate(
        f"{number}",
        [3] * 20,
        TOKENS,
        Sampling(),
        Diffusion.of(settings),
        wants_canvas=True,
        wants_confidence=has_confidence,
    )


def measure() -> list[Cost]:
    settings = EngineSettings(model=str(FIXTURE), device="cpu", dtype="float32", max_num_seqs=REQUESTS)
    engine, encoder = start(settings).engine, msgspec.msgpack.Encoder()
    watch = Stopwatch(engine_module, "canvases_of", "canvas_update")
    costs = []
    for has_confidence in (False, True):
        steps, events = [], []
        for _ in range(ROUNDS):
            watch.seconds, count = 0.0, 0
            updates: list[CanvasUpdate] = []
            for number in range(REQUESTS):
                engine.submit(request(number, has_confidence=has_confidence))
            while engine.has_work:
                canvases = [message for message in engine.step() if isinstance(message, CanvasUpdate)]
                began = time.process_time()
                encoder.encode(canvases)
                watch.seconds += time.process_time() - began
                updates += canvases
                count += 1
            steps.append(1e3 * watch.seconds / count)
            events.append(event_microseconds(updates, has_confidence=has_confidence))
        costs.append(Cost(has_confidence, statistics.median(steps), statistics.median(events)))
    return costs


def event_microseconds(updates: Sequence[CanvasUpdate], *, has_confidence: bool) -> float:
    """From the engine's message to the bytes of the event, with the embedded model's tokenizer."""
    tokenizer, header = load_tokenizer(EMBEDDED_DIRECTORY), AnswerHeader("benchmark", "model")
    decode = {
        update.request_id: lru_cache(256)(lambda run: tokenizer.decode(list(run))) for update in updates
    }
    began = time.process_time()
    for update in updates:
        canvas = canvas_of(update, 0, decode[update.request_id], has_confidence=has_confidence)
        canvas_frame(canvas, header)
    return 1e6 * (time.process_time() - began) / len(updates)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    costs = measure()
    table = Table("canvas", "engine, ms a step of 64", "of a step of LLaDA-8B", "API, us an event")
    for cost in costs:
        name = "with confidence" if cost.has_confidence else "without"
        step = cost.engine_step_milliseconds
        share = f"{step / STEP_MILLISECONDS:.1%}"
        table.add_row(name, f"{step:.2f}", share, f"{cost.api_event_microseconds:.0f}")
    Console(width=120).print(table)
    figures = {
        "machine": platform.processor() or platform.machine(),
        "costs": [asdict(cost) for cost in costs],
    }
    options.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
