"""``dllm bench`` on a terminal: a live table while the load runs, then the figures, JSON and a report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import resource
import signal
from importlib.metadata import version
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dllm_server.extras import DISTRIBUTION
from dllm_server.load.bench import Bench, Measured
from dllm_server.load.comparison import SPREADS, Ratio
from dllm_server.load.duration import in_words
from dllm_server.load.objective import Objective
from dllm_server.load.percentile import Spread
from dllm_server.load.record import record
from dllm_server.load.report import report
from dllm_server.load.run import ClosedLoad, Load, OpenLoad, Run
from dllm_server.load.settings import BenchSettings
from dllm_server.load.summary import Summary

REFRESH_SECONDS = 1.0  # seldom: what draws the table also times the answers
NEWEST = 500  # requests of the live percentiles
LATE_SHARE = 0.1  # of the median first block, beyond which the clients' own lateness is worth a warning
INTERRUPTED_EXIT_CODE = 130
OPEN_FILES = 65_536


def run_bench(settings: BenchSettings, url: str, *, json_file: Path | None, html_file: Path | None) -> int:
    """The exit code: 1 where nothing was answered, or no rate held; 130 after Ctrl-C."""
    for file in (json_file, html_file):
        if file is not None:
            file.touch()  # what cannot be written must be known before the load
    _allow_connections()
    bench = Bench(settings, url)
    asyncio.run(_measure(bench))
    console = Console()
    for part in result(bench):
        console.print(part)
    content = record(bench, version(DISTRIBUTION))
    if json_file is not None:
        json_file.write_text(json.dumps(content, allow_nan=False) + "\n")
    if html_file is not None:
        html_file.write_text(report(content))
    if bench.stop.is_set():
        return INTERRUPTED_EXIT_CODE
    has_result = any(measured.summary().answered for measured in bench.measured)
    return 0 if has_result and (bench.sweep is None or bench.sweep.held) else 1


def _allow_connections() -> None:
    """An open loop may need a connection for each request: open as many files as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if resource.RLIM_INFINITY != soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


async def _measure(bench: Bench) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        bench.stop.set()
        loop.remove_signal_handler(signal.SIGINT)  # a second one ends at once

    loop.add_signal_handler(signal.SIGINT, stop)
    console = Console(stderr=True)
    watching = asyncio.create_task(_watch(bench, console)) if console.is_terminal else None
    try:
        await bench.measure()
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        if watching is not None:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


async def _watch(bench: Bench, console: Console) -> None:
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            live.update(progress(bench), refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)


def progress(bench: Bench) -> RenderableType:
    """What is being done, and how the newest requests fare."""
    head = Text(bench.doing, style="bold")
    if bench.run is None or bench.load is None:
        return head
    run, outcomes = bench.run, bench.run.outcomes
    newest = [outcome for outcome in outcomes[-NEWEST:] if outcome.error is None]
    failed = sum(outcome.error is not None for outcome in outcomes)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("time", "ended", "open", "failed", "first block p50", "p95", "end to end p50", "p95"):
        table.add_column(name, justify="right")
    first = Spread.of(o.first_seconds for o in newest if o.first_seconds is not None)
    end = Spread.of(o.end_seconds for o in newest)
    table.add_row(
        f"{run.seconds:.0f} s",
        f"{len(outcomes):,}",
        f"{run.open_requests:,}",
        Text(f"{failed:,}", style="red" if failed else ""),
        *(in_words(value) for value in (first.p50, first.p95, end.p50, end.p95)),
    )
    return Group(head, ProgressBar(total=1.0, completed=share_done(run, bench.load), width=60), table)


def share_done(run: Run, load: Load) -> float:
    """Of the load, by what ends it: its requests, or its time."""
    match load:
        case OpenLoad():
            return len(run.outcomes) / len(load.arrivals) if load.arrivals else 1.0
        case ClosedLoad():
            return min(max(len(run.outcomes) / load.requests, run.seconds / load.seconds), 1.0)


def result(bench: Bench) -> list[RenderableType]:
    """All that is said at the end."""
    parts: list[RenderableType] = []
    if bench.stop.is_set():
        parts.append(Text("Stopped before its end.", style="yellow"))
    if bench.scale_note is not None:
        parts.append(Text(f"Lengths: {bench.scale_note}.", style="yellow"))
    if bench.sweep is not None:
        parts.append(_sweep(bench))
    for measured in bench.measured:
        if measured.rounds:
            parts += _endpoint(measured, bench.objective)
    ratios = [ratio for ratio in bench.ratios() if not math.isnan(ratio.ratio)]
    if ratios:
        parts.append(_ratios(ratios))
    return parts


def _endpoint(measured: Measured, objective: Objective) -> list[RenderableType]:
    found = measured.summary()
    table = _table(
        f"{measured.endpoint.url}  {measured.endpoint.model}",
        ("from the intended arrival", "mean", "p50", "p95", "p99", "largest"),
    )
    for field, name in (*SPREADS.items(), ("lag", "sent late by")):
        spread: Spread = getattr(found, field)
        if spread.count:
            values = (spread.mean, spread.p50, spread.p95, spread.p99, spread.largest)
            table.add_row(name, *(in_words(value) for value in values))
    parts: list[RenderableType] = [table, Text(_words(found, objective))]
    if found.errors:
        errors = ", ".join(f"{count:,} {kind}" for kind, count in found.errors.items())
        parts.append(Text(f"Failed: {errors}", style="red"))
    if found.lag.p99 > LATE_SHARE * found.first.p50:
        parts.append(
            Text(
                f"Requests were sent up to {in_words(found.lag.p99)} late (p99): this machine is too busy to "
                "send this load; latencies hold it.",
                style="yellow",
            )
        )
    pairs = measured.agreements()
    if not pairs:
        return parts
    server = _table("beside the server's own counters", ("", "clients", "server", "difference"))
    for pair in pairs:
        show = in_words if pair.is_seconds else figure
        server.add_row(pair.name, show(pair.clients), show(pair.server), f"{pair.difference:.2%}")
    return [*parts, server]


def _words(found: Summary, objective: Objective) -> str:
    tokens = "" if found.completion_tokens is None else f", {figure(found.tokens_per_second)} tokens a second"
    words = (
        f"{found.answered:,} of {found.requests:,} requests answered in {in_words(found.seconds)}: "
        f"{figure(found.answered_per_second)} a second{tokens}."
    )
    if objective == Objective():
        return words
    return f"{words}\n{found.good_share:.1%} within {objective}: {figure(found.good_per_second)} a second."


def _sweep(bench: Bench) -> RenderableType:
    sweep = bench.sweep
    assert sweep is not None  # noqa: S101 - for the type checker
    table = _table(
        f"{bench.url} under {bench.objective}",
        ("requests a second", "good", "first block p99", "end to end p99", ""),
    )
    for tried in sorted(bench.tried, key=lambda tried: tried.rate):
        table.add_row(
            figure(tried.rate),
            f"{tried.summary.good_share:.1%}",
            in_words(tried.summary.first.p99),
            in_words(tried.summary.end.p99),
            Text("held", style="green") if tried.has_held else Text("broke", style="red"),
        )
    if not sweep.held:
        return Group(table, Text("No rate that was tried held.", style="bold red"))
    broken = "no rate in reach broke it" if math.isinf(sweep.broken) else f"breaks at {figure(sweep.broken)}"
    words = f"Holds at {figure(sweep.held)} requests a second, whose figures follow; {broken}."
    return Group(table, Text(words, style="bold"))


def _ratios(ratios: list[Ratio]) -> RenderableType:
    table = _table("second / first", ("", "first", "second", "ratio", "of single rounds"))
    for ratio in ratios:
        show = figure if ratio.name.endswith("a second") else in_words
        span = f"{figure(ratio.least)} to {figure(ratio.largest)}"
        table.add_row(ratio.name, show(ratio.first), show(ratio.second), figure(ratio.ratio), span)
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left")
    return table


def figure(value: float) -> str:
    """Three digits; a dash for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.3g}"
