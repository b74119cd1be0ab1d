"""``python -m benchmarks.api_load``: the API process under large bodies and streams at once: how long
``/health`` takes, and what memory is kept."""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import multiprocessing
import multiprocessing.synchronize
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import psutil
from dllm_server.api.guards.body_shape import MOST_CONTAINERS, MOST_VALUES
from rich.console import Console
from rich.table import Table

RESULT = Path(__file__).parent / "results" / "api_load.json"
FIXTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "llada_mha"

SMALL = ("--device", "cpu", "--dtype", "float32", "--max-num-seqs", "16")
BODY_BYTES = 4 * 1024**2
BODIES, STREAMS = 6, 64
STREAM_TOKENS = 192
PROBE_SECONDS = 0.02
SETTLE_SECONDS = 3.0
LARGE_ID = 10**14  # in no vocabulary; it makes the most ids fill the body
TEXT = "The quick brown fox jumps over the lazy dog, 12345 times.\n"


@dataclass(frozen=True, slots=True)
class Load:
    """Six bodies of 4 MiB, sent at once, round after round."""

    name: str
    model: str
    path: str
    body: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Milliseconds of ``/health``, resident MiB of the API process."""

    load: str
    seconds: float
    probes: int
    idle_p99_milliseconds: float
    p50_milliseconds: float
    p99_milliseconds: float
    worst_milliseconds: float
    statuses: dict[str, int]
    start_mib: int
    highest_mib: int
    end_mib: int


def filled(make: Callable[[int], object], unit_bytes: int) -> bytes:
    """JSON of as many units as a body may hold."""
    return json.dumps(make((BODY_BYTES - 200) // unit_bytes)).encode()


def text_body() -> bytes:
    def chat(units: int) -> object:
        return {"messages": [{"role": "user", "content": TEXT * units}], "max_tokens": 8}

    return filled(chat, len(json.dumps(TEXT)) - 2)


def words_body() -> bytes:
    return filled(lambda units: {"prompt": "t1 t22 t333 " * units, "max_tokens": 8}, 12)


def ids_body() -> bytes:
    return filled(lambda units: {"prompt": [12345] * units, "max_tokens": 8}, 7)


def most_ids_body() -> bytes:
    """As many ids as a request may hold, and so long that they fill it."""
    return filled(lambda units: {"prompt": [LARGE_ID] * min(units, MOST_VALUES), "max_tokens": 8}, 17)


def messages_body() -> bytes:
    message = {"role": "user", "content": "x"}
    return filled(lambda units: {"messages": [message] * units}, len(json.dumps(message)) + 2)


def most_messages_body() -> bytes:
    """As many messages as a request may hold, and so long that they fill it."""
    most = MOST_CONTAINERS - 2  # the body and the list
    text = TEXT * (BODY_BYTES // most // len(TEXT) + 1)
    message = {"role": "user", "content": text[: BODY_BYTES // most - 100]}
    return json.dumps({"messages": [message] * most}).encode()


LOADS = (
    Load("chat text, refused by its length", "embedded", "/v1/chat/completions", text_body),
    Load("text without a bound, tokenised whole", str(FIXTURE), "/v1/completions", words_body),
    Load("more token ids than are read", "embedded", "/v1/completions", ids_body),
    Load("token ids, as many as are read", "embedded", "/v1/completions", most_ids_body),
    Load("more messages than are read", "embedded", "/v1/chat/completions", messages_body),
    Load("messages, as many as are read", "embedded", "/v1/chat/completions", most_messages_body),
)


@contextmanager
def served(model: str, flags: Sequence[str] = SMALL) -> Iterator[tuple[str, psutil.Process]]:
    """A server of its own; its URL and its API process."""
    command = [sys.executable, "-m", "dllm_server.cli", "serve", model, *flags]
    command += ["--host", "127.0.0.1", "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    try:
        entries = (json.loads(line) for line in process.stderr if line.startswith("{"))
        url = next(entry["url"] for entry in entries if entry["event"] == "listening")
        with subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL):
            try:
                yield url, psutil.Process(process.pid)
            finally:  # before ``cat``, which ends with it
                process.terminate()
                process.wait(60)
    finally:
        process.kill()


def probe(url: str, is_over: multiprocessing.synchronize.Event, results: Connection) -> None:
    """Ask for ``/health`` as a kubelet does, over a connection of its own each time."""
    seconds: list[float] = []
    host, port = url.removeprefix("http://").split(":")
    results.send(seconds)  # none yet: it has started
    while not is_over.is_set():
        began = time.perf_counter()
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()
        seconds.append(time.perf_counter() - began)
        time.sleep(PROBE_SECONDS)
    results.send(seconds)


@contextmanager
def probed(url: str) -> Iterator[list[float]]:
    """Seconds of each probe while the block runs, from another process; filled in at its end."""
    context = multiprocessing.get_context("spawn")
    is_over, (ours, theirs) = context.Event(), context.Pipe(duplex=False)
    process = context.Process(target=probe, args=(url, is_over, theirs))
    process.start()
    theirs.close()  # so that a probe that fails ends the benchmark
    seconds: list[float] = ours.recv()
    try:
        yield seconds
    finally:
        is_over.set()
        seconds += ours.recv()
        process.join()


async def stream(client: httpx.AsyncClient, max_tokens: int) -> None:
    body = {"prompt": [40] * 32, "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        async for _ in answer.aiter_bytes():
            pass


async def streams_without_end(client: httpx.AsyncClient) -> None:
    while True:
        await stream(client, STREAM_TOKENS)


async def rounds_of(
    client: httpx.AsyncClient, load: Load, seconds: float, api: psutil.Process, statuses: dict[str, int]
) -> int:
    """Send the bodies round after round for so long; the highest resident bytes seen between answers."""
    content, headers = load.body(), {"Content-Type": "application/json"}
    highest = 0

    async def send() -> None:
        nonlocal highest
        answer = await client.post(load.path, content=content, headers=headers)
        statuses[str(answer.status_code)] = statuses.get(str(answer.status_code), 0) + 1
        highest = max(highest, api.memory_info().rss)

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.gather(*(send() for _ in range(BODIES)))
    return highest


def percentile(seconds: Sequence[float], share: float) -> float:
    ordered = sorted(seconds)
    return round(1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


async def measure(load: Load, seconds: float, url: str, api: psutil.Process) -> Outcome:
    limits = httpx.Limits(max_connections=STREAMS + BODIES)
    statuses: dict[str, int] = {}
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        await stream(client, 32)  # what is made once, at the first request
        start = api.memory_info().rss
        with probed(url) as idle:
            await asyncio.sleep(SETTLE_SECONDS)
        streams = [asyncio.create_task(streams_without_end(client)) for _ in range(STREAMS)]
        await asyncio.sleep(SETTLE_SECONDS)  # they are open
        with probed(url) as busy:
            highest = await rounds_of(client, load, seconds, api, statuses)
        for task in streams:
            if not task.cancel():
                task.result()  # why it has ended
        await asyncio.gather(*streams, return_exceptions=True)
    await asyncio.sleep(SETTLE_SECONDS)
    return Outcome(
        load=load.name,
        seconds=seconds,
        probes=len(busy),
        idle_p99_milliseconds=percentile(idle, 0.99),
        p50_milliseconds=percentile(busy, 0.5),
        p99_milliseconds=percentile(busy, 0.99),
        worst_milliseconds=percentile(busy, 1.0),
        statuses=statuses,
        start_mib=start >> 20,
        highest_mib=highest >> 20,
        end_mib=api.memory_info().rss >> 20,
    )


def report(outcomes: Sequence[Outcome]) -> None:
    table = Table(title=f"{BODIES} bodies of 4 MiB and {STREAMS} streams at once")
    for column in (
        "load",
        "probes",
        "idle p99 ms",
        "p50 ms",
        "p99 ms",
        "worst ms",
        "MiB before, most, after",
    ):
        table.add_column(column)
    for o in outcomes:
        times = (o.idle_p99_milliseconds, o.p50_milliseconds, o.p99_milliseconds, o.worst_milliseconds)
        memory = f"{o.start_mib}, {o.highest_mib}, {o.end_mib}"
        table.add_row(o.load, str(o.probes), *map(str, times), memory)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for which six bodies are sent again")
    parser.add_argument("--write", action="store_true", help=f"keep the result in {RESULT.name}")
    arguments = parser.parse_args()
    outcomes = []
    for load in LOADS:
        with served(load.model) as (url, api):
            outcomes.append(asyncio.run(measure(load, arguments.seconds, url, api)))
        report(outcomes)
    if arguments.write:
        machine = {"cpu_count": os.cpu_count(), "python": platform.python_version()}
        content = {"machine": machine, "loads": [asdict(outcome) for outcome in outcomes]}
        RESULT.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
