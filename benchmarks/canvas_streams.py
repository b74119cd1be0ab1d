"""``python -m benchmarks.canvas_streams``: what it costs to watch. 64 streams without a canvas, with one,
with confidence, and while a page asks for ``/snapshot`` ten times a second; in turns on one server."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import psutil
from dllm_server.models.registry import find_family
from rich.console import Console
from rich.table import Table

from benchmarks.api_load import FIXTURE, served
from benchmarks.gpu.scale import LLADA_8B
from benchmarks.vocabulary import write_tokenizer

RESULT = Path(__file__).parent / "results" / "canvas_streams.json"
STREAMS, PROCESSES = 64, 8
SNAPSHOT_SECONDS, SETTLE_SECONDS = 0.1, 0.5

DECODINGS: dict[str, dict[str, Any]] = {
    "quota 2": {"strategy": "quota", "value": 2},
    "threshold 0.9": {"strategy": "threshold", "value": 0.9},
}
WATCHING: dict[str, dict[str, bool] | None] = {
    "no canvas": None,
    "canvas": {"include_canvas": True},
    "canvas and confidence": {"include_canvas": True, "include_canvas_confidence": True},
    "no canvas, engine page": None,
}


@dataclass(frozen=True, slots=True)
class Load:
    """What each of the streams asks for."""

    prompt_tokens: int
    tokens: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn: tokens a second of all streams, CPU milliseconds of the engine process a step, and of the API
    process for each forward pass of a stream, and what was streamed."""

    tokens_per_second: float
    engine_step_milliseconds: float
    api_pass_milliseconds: float
    megabytes: float


@dataclass(frozen=True, slots=True)
class Outcome:
    decoding: str
    watching: str
    samples: list[Sample]

    def median(self, name: str) -> float:
        return float(statistics.median(getattr(sample, name) for sample in self.samples))


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds of both processes and steps so far."""

    engine_seconds: float
    api_seconds: float
    steps: int

    @classmethod
    def of(cls, url: str, api: psutil.Process) -> Self:
        (engine,) = api.children()
        steps = httpx.get(f"{url}/snapshot").json()["steps"]["total"]
        seconds = [process.cpu_times().user + process.cpu_times().system for process in (engine, api)]
        return cls(seconds[0], seconds[1], sum(steps.values()))


def body_of(load: Load, unmasking: dict[str, Any], options: dict[str, bool] | None) -> bytes:
    body = {
        "prompt": [(7 * place) % 200 + 20 for place in range(load.prompt_tokens)],
        "max_tokens": load.tokens,
        "ignore_eos": True,
        "stream": True,
        "diffusion": {"unmasking": unmasking},
    }
    return json.dumps(body | ({} if options is None else {"stream_options": options})).encode()


def read_stream(url: str, body: bytes) -> int:
    """Bytes of the answer, read as they come and not looked into, so that the client costs little."""
    address = urlsplit(url)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), timeout=300) as connection:
        connection.sendall(head.encode() + body)
        size, end = 0, b""
        while piece := connection.recv(1 << 16):
            size += len(piece)
            end = (end + piece)[-64:]
    if b"[DONE]" not in end:
        raise RuntimeError(f"the stream broke off: {end!r}")
    return size


def read_streams(url: str, body: bytes, count: int) -> int:
    with ThreadPoolExecutor(count) as threads:
        return sum(threads.map(lambda _: read_stream(url, body), range(count)))


@contextmanager
def engine_page(url: str) -> Iterator[None]:
    """Asks as the engine page does, but ten times as often."""
    is_over = threading.Event()

    def ask_on() -> None:
        with httpx.Client(base_url=url) as client:
            while not is_over.wait(SNAPSHOT_SECONDS):
                client.get("/snapshot").raise_for_status()

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def measure(url: str, api: psutil.Process, load: Load, console: Console) -> list[Outcome]:
    """Each kind in turn, round after round; the first of all is thrown away."""
    kinds = [(decoding, watching) for decoding in DECODINGS for watching in WATCHING]
    found: dict[tuple[str, str], list[Sample]] = {kind: [] for kind in kinds}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as clients:
        for number in range(load.rounds + 1):
            for decoding, watching in kinds[number % len(kinds) :] + kinds[: number % len(kinds)]:
                body = body_of(load, DECODINGS[decoding], WATCHING[watching])
                with engine_page(url) if "page" in watching else nullcontext():
                    sample = take(url, api, body, load.tokens, clients)
                console.print(
                    f"round {number}, {decoding}, {watching}: {sample.tokens_per_second:,.0f} tokens/s"
                )
                if number:
                    found[decoding, watching].append(sample)
    return [Outcome(*kind, samples) for kind, samples in found.items()]


def take(url: str, api: psutil.Process, body: bytes, tokens: int, clients: ProcessPoolExecutor) -> Sample:
    before, began = Reading.of(url, api), time.perf_counter()
    share = STREAMS // PROCESSES
    sizes = [clients.submit(read_streams, url, body, share) for _ in range(PROCESSES)]
    size = sum(part.result() for part in sizes)
    seconds = time.perf_counter() - began
    time.sleep(SETTLE_SECONDS)  # for the newest snapshot
    after = Reading.of(url, api)
    steps = after.steps - before.steps
    return Sample(
        tokens_per_second=STREAMS * tokens / seconds,
        engine_step_milliseconds=1e3 * (after.engine_seconds - before.engine_seconds) / steps,
        api_pass_milliseconds=1e3 * (after.api_seconds - before.api_seconds) / (steps * STREAMS),
        megabytes=size / 1e6,
    )


def shown(outcomes: Sequence[Outcome]) -> Table:
    table = Table("decoding", "watching", "tokens/s", "share", "engine ms a step", "API ms a pass", "MB")
    plain = {outcome.decoding: outcome for outcome in outcomes if outcome.watching == "no canvas"}
    for outcome in outcomes:
        rate = outcome.median("tokens_per_second")
        table.add_row(
            outcome.decoding,
            outcome.watching,
            f"{rate:,.0f}",
            f"{rate / plain[outcome.decoding].median('tokens_per_second'):.1%}",
            f"{outcome.median('engine_step_milliseconds'):.2f}",
            f"{outcome.median('api_pass_milliseconds'):.3f}",
            f"{outcome.median('megabytes'):.1f}",
        )
    return table


def dummy(directory: Path) -> str:
    """LLaDA-8B's configuration and a tokenizer of its size, for random weights."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(LLADA_8B))
    write_tokenizer(directory, find_family(LLADA_8B)[1])
    return str(directory)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(FIXTURE), help="a tiny one if unset")
    parser.add_argument("--dummy", action="store_true", help="random weights of LLaDA-8B's shapes instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompt-tokens", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    console = Console(width=120)
    flags = ["--device", options.device, "--max-num-seqs", str(STREAMS)]
    with ExitStack() as stack:
        if options.dummy:
            options.model = dummy(Path(stack.enter_context(tempfile.TemporaryDirectory()), "llada-8b-shapes"))
            flags += ["--load-format", "dummy"]
        url, api = stack.enter_context(served(options.model, flags))
        device = httpx.get(f"{url}/snapshot").json()["server"]["device"]
        load = Load(options.prompt_tokens, options.tokens, options.rounds)
        outcomes = measure(url, api, load, console)
    console.print(shown(outcomes))
    machine = {"device": device, "processor": platform.processor(), "model": Path(options.model).name}
    figures = {"machine": machine, "outcomes": [asdict(outcome) for outcome in outcomes]}
    options.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
