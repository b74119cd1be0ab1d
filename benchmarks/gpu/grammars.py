"""What requests with a grammar cost a step that others share, at a real vocabulary."""

from __future__ import annotations

import json
import statistics
from typing import Any

import msgspec
from dllm_server.engine.requests.messages import Generate
from dllm_server.structure.grammar import Grammar, GrammarKind

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult, Target
from benchmarks.gpu.offline import measure_requests, requests
from benchmarks.gpu.scale import Case

REQUESTS, GUIDED, ROUNDS, BLOCKS = 64, 8, 3, 2
ROW = Target(14, 150, is_ceiling=True)
# More strings than the answers have room for: a request with it ends as late as the others.
GRAMMAR = Grammar(
    GrammarKind.JSON_SCHEMA, json.dumps({"type": "array", "items": {"type": "string"}, "minItems": 512})
)


def run(bench: Bench, result: PartResult) -> None:
    """A token a step of each of ``REQUESTS``, of which none and ``GUIDED`` have a grammar, in turns;
    each the median of its rounds after one that is thrown away."""
    scale = bench.scale
    engine = bench.start(has_tokenizer=True)
    engine.engine.grammars.compiled(GRAMMAR).result()  # before a step waits for it
    case = Case(min(REQUESTS, scale.settings["max_num_seqs"]), 1, 0.5)
    guided = min(GUIDED, case.requests // 2)
    found: dict[int, list[dict[str, Any]]] = {0: [], guided: []}
    for number in range(ROUNDS + 1):
        for count, measured in found.items():
            bench.check_time(f"{number} of {ROUNDS + 1} rounds")
            asked = [
                msgspec.structs.replace(request, max_tokens=BLOCKS * scale.block)
                for request in requests(bench, case, f"grammar-{number}-{count}-")
            ]
            one = measure_requests(bench, engine, [*map(held, asked[:count]), *asked[count:]])
            measured += [one] * (number > 0)
    step = {
        count: statistics.median(one["milliseconds_per_step"] for one in runs)
        for count, runs in found.items()
    }
    result.data["runs"] = {str(count): runs for count, runs in found.items()}
    result.add(f"a step of {case.requests} requests", step[0], "ms")
    result.add(f"the same, {guided} of them with a grammar", step[guided], "ms")
    row = 1e3 * (step[guided] - step[0]) / guided
    result.add("a row with a grammar, beyond a free one", row, "us a step", None if scale.is_tiny else ROW)
    bench.say(f"{step[0]:.2f} ms a step, {step[guided]:.2f} with {guided} grammars: {row:.0f} us a row")


def held(request: Generate) -> Generate:
    return msgspec.structs.replace(request, grammar=GRAMMAR)
