"""``python -m benchmarks.grammar_cost``: what 8 requests with a grammar among 64 add to the CPU time of a
step of the embedded model. CPU time of one thread, so that other work on the machine matters little."""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog
import torch
from dllm_server.engine.engine import Engine
from dllm_server.engine.process.startup import start
from dllm_server.engine.requests.messages import BlockCommitted, Diffusion, Generate, Sampling
from dllm_server.models.source import EMBEDDED_DIRECTORY
from dllm_server.settings import DiffusionSettings, EngineSettings
from dllm_server.structure.grammar import Grammar, GrammarKind

RESULT = Path(__file__).parent / "results" / "grammar_cost.json"
REQUESTS, GUIDED, TOKENS, ROUNDS = 64, 8, 16, 3
# A token a step as for the others, and no end before theirs.
GRAMMAR = Grammar(GrammarKind.JSON_SCHEMA, json.dumps({"type": "array", "items": {"type": "string"}}))


def requests(guided: int) -> list[Generate]:
    settings = DiffusionSettings.model_validate({"unmasking": {"strategy": "quota"}, "block_length": 16})
    plain = [
        Generate(str(number), [7 + number % 50] * 20, TOKENS, Sampling(), Diffusion.of(settings))
        for number in range(REQUESTS)
    ]
    return [
        msgspec.structs.replace(one, grammar=GRAMMAR) if place < guided else one
        for place, one in enumerate(plain)
    ]


def run(engine: Engine, guided: int) -> tuple[float, dict[str, list[int]]]:
    """CPU milliseconds a step, and the tokens of each request."""
    tokens: dict[str, list[int]] = {}
    for request in requests(guided):
        engine.submit(request)
    steps, began = 0, time.process_time()
    while engine.has_work:
        for message in engine.step():
            if isinstance(message, BlockCommitted):
                tokens.setdefault(message.request_id, []).extend(message.token_ids)
        steps += engine.last_step is not None
    return 1e3 * (time.process_time() - began) / steps, tokens


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    torch.set_num_threads(1)
    settings = EngineSettings(
        model=str(EMBEDDED_DIRECTORY), device="cpu", dtype="float32", max_num_seqs=REQUESTS
    )
    engine = start(settings).engine
    run(engine, GUIDED)  # compiles the grammar
    free, mixed, unchanged = [], [], True
    for _ in range(ROUNDS):
        milliseconds, alone = run(engine, 0)
        free.append(milliseconds)
        milliseconds, beside = run(engine, GUIDED)
        mixed.append(milliseconds)
        unchanged &= all(alone[str(n)] == beside[str(n)] for n in range(GUIDED, REQUESTS))
    figures = {
        "machine": platform.processor() or platform.machine(),
        "requests": REQUESTS,
        "guided": GUIDED,
        "free_step_milliseconds": statistics.median(free),
        "mixed_step_milliseconds": statistics.median(mixed),
        "growth": statistics.median(mixed) / statistics.median(free) - 1,
        "free_tokens_unchanged": unchanged,
    }
    print(json.dumps(figures, indent=1))
    options.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
