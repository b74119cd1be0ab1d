"""Requests that come when they come: latency at a share of saturation, bursts, refresh staggering, overload
and recovery, and the static batcher under the same arrivals."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.arrivals import BURST_SHAPE, PROFILES, Arrival, LengthProfile, arrivals, random_job
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult, Target
from benchmarks.gpu.latency import Latencies, latencies
from benchmarks.gpu.recovery import recovery_seconds
from benchmarks.gpu.session import Session, run_all
from benchmarks.gpu.staggering import without_staggering
from benchmarks.gpu.static import serve_static

RETENTION_RATIO = 0.5
TAIL = Target(7, 0.25, is_ceiling=True)
WORSE = Target(7, 1.0)
RECOVERS = Target(7, 1.0)
SEED = 29


def run(bench: Bench, result: PartResult) -> None:
    """All that the engine serves first, then the static batcher with the device to itself."""
    runs: list[dict[str, Any]] = result.data.setdefault("runs", [])
    rates: dict[str, float] = {}
    load = bench.scale.open_loop
    for profile in load.profiles:
        rates[profile] = saturation(bench, profile)
        result.add(f"{profile}: saturation", rates[profile], "requests/s", note=f"{load.quota} tokens a step")
        _serve(bench, profile, "poisson", rates[profile], load.load_share, runs, result)
        if load.has_bursts:
            _serve(bench, profile, "bursty", rates[profile], load.load_share, runs, result)
        bench.check_time(f"profile {profile}")
    first = load.profiles[0]
    for share in load.sweep_shares:
        _serve(bench, first, "poisson", rates[first], share, runs, result)
    _staggering(bench, load.profiles[-1], rates[load.profiles[-1]], runs, result)
    _overload(bench, first, rates[first], runs, result)
    for profile in load.profiles:
        bench.check_time(f"the engine's runs; the static batcher's from {profile} on are missing")
        _static(bench, profile, rates[profile], runs, result)


def saturation(bench: Bench, profile: str) -> float:
    """Requests a second with a queue that does not run dry: all submitted at once, the time in which the
    middle 60% finished."""
    load, rng = bench.scale.open_loop, random.Random(SEED)
    lengths, vocabulary = PROFILES[profile], bench.scale.model["vocab_size"]
    jobs = [
        random_job(lengths.prompt_tokens(rng), lengths.max_tokens, vocabulary, rng)
        for _ in range(load.saturation_requests)
    ]
    requests = [
        job.request(
            f"saturation-{profile}-{index}",
            load.quota,
            block=bench.scale.block,
            retention_ratio=RETENTION_RATIO,
            ignore_eos=True,
        )
        for index, job in enumerate(jobs)
    ]
    session = run_all(bench.engine(), requests)
    rate = committed_rate(session) / lengths.max_tokens
    bench.say(f"{profile}: saturated at {rate:.2f} requests/s")
    return rate


def committed_rate(session: Session) -> float:
    """Tokens a second between 10% and 70% of all tokens: after the first refreshes, while the batch is
    full."""
    total = sum(sample.committed_tokens for sample in session.samples)
    committed, start = 0, (0.0, 0)
    for sample in session.samples:
        committed += sample.committed_tokens
        if not start[1] and committed >= 0.1 * total:
            start = (sample.seconds, committed)
        if committed >= 0.7 * total and sample.seconds > start[0]:
            return (committed - start[1]) / (sample.seconds - start[0])
    return total / session.samples[-1].seconds


def _serve(
    bench: Bench,
    profile: str,
    process: str,
    saturated: float,
    share: float,
    runs: list[dict[str, Any]],
    result: PartResult,
    *,
    label: str = "",
) -> Latencies:
    """The engine at ``share`` of the saturation."""
    load = bench.scale.open_loop
    coming = _arrivals(bench, PROFILES[profile], process, [(load.load_seconds, share * saturated)])
    session, found, cut = replay(bench, coming, f"{profile}-{process}-{share:g}{label}", load)
    name = f"{profile}, {process}, {share:.0%} of saturation{label}"
    runs.append(_record(name, "engine", profile, process, share, saturated, found, session, cut))
    _report(name, found, result)
    bench.say(f"{name}: p50 {found.p50:.2f} s, p99 {found.p99:.2f} s of {found.requests}")
    return found


def replay(
    bench: Bench, coming: Sequence[Arrival], name: str, load: Any, until: float = math.inf
) -> tuple[Session, Latencies, float]:
    """Serve arrivals until all are done or ``drain_seconds`` after the last of them; then nothing is left."""
    session = Session(bench.engine())
    requests = [
        (
            arrival.seconds,
            arrival.job.request(
                f"{name}-{index}",
                load.quota,
                block=bench.scale.block,
                retention_ratio=RETENTION_RATIO,
                ignore_eos=True,
            ),
        )
        for index, arrival in enumerate(coming)
    ]
    last = coming[-1].seconds if coming else 0.0
    session.replay(requests, min(until, last + load.drain_seconds))
    cut = session.now
    found = latencies(session.served.values(), cut)
    session.abandon()
    return session, found, cut


def _arrivals(
    bench: Bench, lengths: LengthProfile, process: str, phases: Sequence[tuple[float, float]]
) -> list[Arrival]:
    shape = BURST_SHAPE if process == "bursty" else 1.0
    return arrivals(phases, lengths, bench.scale.model["vocab_size"], shape=shape, seed=SEED)


def _staggering(
    bench: Bench, profile: str, saturated: float, runs: list[dict[str, Any]], result: PartResult
) -> None:
    """The same arrivals with refreshes spread and with all of them at once."""
    share = bench.scale.open_loop.load_share
    spread = next(
        run["latencies"]
        for run in runs
        if (run["profile"], run["process"], run["system"], run["share"]) == (profile, "poisson", "engine", share)
    )
    with without_staggering(bench):
        at_once = _serve(
            bench, profile, "poisson", saturated, share, runs, result, label=", refreshes at once"
        )
    note = "same arrivals; above 1 staggering helps"
    for name in ("p50", "p99"):
        ratio = getattr(at_once, name) / spread[name]
        target = WORSE if name == "p99" else None
        result.add(f"{profile}: {name} without staggering over with", ratio, "times", target, note)


def _overload(
    bench: Bench, profile: str, saturated: float, runs: list[dict[str, Any]], result: PartResult
) -> None:
    """Half the saturation, then beyond it, then half again; when the queue is empty for the first time."""
    load = bench.scale.open_loop
    calm = load.recovery_share * saturated
    before = load.overload_seconds / 4
    phases = [
        (before, calm),
        (load.overload_seconds, load.overload_share * saturated),
        (load.recovery_seconds, calm),
    ]
    coming = _arrivals(bench, PROFILES[profile], "poisson", phases)
    session, found, cut = replay(bench, coming, f"{profile}-overload", load)
    end = before + load.overload_seconds
    seconds = recovery_seconds(session.samples, end)
    name = f"{profile}, {load.overload_seconds:g} s at {load.overload_share:.0%} of saturation"
    record = _record(name, "engine", profile, "overload", load.overload_share, saturated, found, session, cut)
    runs.append(record | {"overload": [before, end], "recovery_seconds": seconds})
    note = f"then {load.recovery_share:.0%} of saturation; {found.failed_requests} requests failed"
    result.add(f"{name}: recovers", float(seconds is not None), "yes = 1", RECOVERS, note)
    if seconds is not None:
        result.add(f"{name}: until the queue is empty again", seconds, "s", note=note)
    _report(name, found, result)
    bench.say(f"{name}: queue empty {'never' if seconds is None else f'{seconds:.1f} s'} after the overload")


def _static(
    bench: Bench, profile: str, saturated: float, runs: list[dict[str, Any]], result: PartResult
) -> None:
    """The static batcher under the Poisson arrivals that the engine got. The cut makes its tail a lower
    bound, and the ratio an upper one."""
    load, lengths = bench.scale.open_loop, PROFILES[profile]
    coming = _arrivals(bench, lengths, "poisson", [(load.load_seconds, load.load_share * saturated)])
    batch = static_batch(bench, lengths)
    served, cut = serve_static(bench, coming, load.quota, batch, load.static_seconds)
    found = latencies(served, cut)
    name = f"{profile}, poisson, {load.load_share:.0%} of saturation, static batches of {batch}"
    engine = next(
        run["latencies"]
        for run in runs
        if (run["profile"], run["process"], run["system"], run["share"])
        == (profile, "poisson", "engine", load.load_share)
    )
    record = _record(name, "static", profile, "poisson", load.load_share, saturated, found, None, cut)
    runs.append(record | {"tokens": sum(request.tokens for request in served)})
    note = f"{found.open_requests} of {found.requests} still open after {cut:.0f} s: a lower bound"
    _report(name, found, result, note if found.open_requests else "")
    ratio = engine["p99"] / found.p99
    result.add(f"{profile}: engine's p99 over the static batcher's", ratio, "times", TAIL, note)
    bench.say(f"{name}: p50 {found.p50:.2f} s, p99 {found.p99:.2f} s")


def static_batch(bench: Bench, lengths: LengthProfile) -> int:
    """The largest batch of the scale whose float64 softmax fits beside the weights at the longest prompt."""
    scale = bench.scale
    sequence = lengths.longest + lengths.max_tokens
    row_bytes = scale.model["vocab_size"] * (2 + 8 + 8)  # logits, their wide copy, the softmax
    kv_bytes = 4 * scale.model["n_layers"] * scale.model["d_model"]
    room = 55e9 if bench.is_cuda else math.inf
    fitting = [batch for batch in scale.static_batches if batch * sequence * (row_bytes + kv_bytes) <= room]
    return max(fitting, default=4)


def _record(
    name: str,
    system: str,
    profile: str,
    process: str,
    share: float,
    saturated: float,
    found: Latencies,
    session: Session | None,
    cut: float,
) -> dict[str, Any]:
    samples = session.samples if session else []
    tokens = sum(sample.committed_tokens for sample in samples)
    return {
        "name": name,
        "system": system,
        "profile": profile,
        "process": process,
        "share": share,
        "offered_requests_per_second": share * saturated,
        "seconds": cut,
        "tokens": tokens,
        "latencies": found.record(),
        "composition": [list(sample) for sample in samples[:: max(len(samples) // 400, 1)]],
    }


def _report(name: str, found: Latencies, result: PartResult, note: str = "") -> None:
    for field in ("p50", "p95", "p99", "first_block_p50", "first_block_p99"):
        result.add(f"{name}: {field}", getattr(found, field), "s", note=note)
