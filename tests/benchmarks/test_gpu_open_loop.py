"""The open-loop part on toy shapes: what it keeps of a run, and the static batcher's clock."""

from __future__ import annotations

import json
import math

from dllm_server.load.lengths import PROFILES
from rich.console import Console

from benchmarks.gpu.arrivals import job_arrivals
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult
from benchmarks.gpu.latency import latencies
from benchmarks.gpu.load_run import LoadRun, make_arrivals, serve
from benchmarks.gpu.record import rounded
from benchmarks.gpu.scale import TINY
from benchmarks.gpu.session import Served
from benchmarks.gpu.static import serve_static


def make_run(system: str, served: list[Served], cut: float) -> LoadRun:
    return LoadRun("a run", system, "tiny", "poisson", 0.8, 5.0, cut, latencies(served, cut), 32)


def test_a_run_whose_requests_are_all_done_is_no_bound() -> None:
    assert make_run("engine", [Served(0.0, 1.0, 2.0)], cut=30.0).bound == ""


def test_a_run_with_open_requests_says_so_on_each_of_its_figures() -> None:
    result = PartResult()

    make_run("static", [Served(0.0, 1.0, 2.0), Served(1.0)], cut=30.0).report(result)

    assert {figure.note for figure in result.figures} == {"lower bound: 1 of 2 still open after 30 s"}


def test_an_engines_run_keeps_block_gaps_and_the_seconds_of_its_steps() -> None:
    bench, result = Bench(TINY, {}, Console(quiet=True)), PartResult()
    coming = make_arrivals(bench, "tiny", "bursty", [(0.2, 40.0)])

    try:
        run = serve(bench, coming, name="x", profile="tiny", process="bursty", share=1.0, saturated=40.0)
    finally:
        bench.close()
    run.report(result)

    kept = json.loads(json.dumps(rounded(run.record()), allow_nan=False))["latencies"]
    assert 0 < kept["gap_p50"] <= kept["gap_p99"] <= kept["gap_max"]
    assert 0 < kept["step_p50"] <= kept["step_p99"] <= kept["step_max"]
    assert {"x: first_block_max", "x: gap_max"} <= {figure.name for figure in result.figures}


def test_a_static_batcher_that_is_done_early_took_until_then() -> None:
    bench = Bench(TINY, {}, Console(quiet=True))
    coming = job_arrivals([(0.1, 60.0)], PROFILES["tiny"], TINY.model["vocab_size"])

    try:
        served, seconds = serve_static(bench, coming, quota=4, batch=4, until=math.inf)
    finally:
        bench.close()

    assert seconds >= max(request.finished or math.inf for request in served)
    assert math.isfinite(seconds)
