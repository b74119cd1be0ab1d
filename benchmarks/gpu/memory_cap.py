"""A large card behaving as a small one: overload inside a memory limit, and every byte with its owner."""

from __future__ import annotations

from typing import Any

import torch
from dllm_server.engine.process.startup import StartedEngine
from dllm_server.memory import GIB

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult, Target
from benchmarks.gpu.pressure import Pressure
from benchmarks.gpu.session import Session

IN_FLIGHT = Target(6, 16)
NO_OOM = Target(6, 0, is_ceiling=True)
UNCAPPED_SHARE = Target(6, 0.85)
HALF = Target(6, 0.60, is_ceiling=True)
WITHIN = Target(6, 0.05, is_ceiling=True)
RAMP_SHARE = 0.2  # of a run, left out of its throughput
WINDOW_SECONDS = 1.0


def run(bench: Bench, result: PartResult) -> None:
    """Overload: the queue never runs dry. r = 0.5 inside the limit, r = 1 inside it, r = 0.5 without it."""
    scale = bench.scale
    runs: dict[str, dict[str, Any]] = result.data.setdefault("runs", {})
    plan = (
        ("capped, r = 0.5", 0.5, scale.memory_limit, scale.memory_seconds),
        ("capped, r = 1", 1.0, scale.memory_limit, scale.memory_short_seconds),
        ("uncapped, r = 0.5", 0.5, None, scale.memory_short_seconds),
    )
    for name, retention_ratio, limit, seconds in plan:
        changes = scale.memory_settings | {"retention_ratio": retention_ratio, "gpu_memory_limit": limit}
        if limit is None and bench.is_cuda:
            changes["kv_pool_bytes"] = "28GiB"
        runs[name] = overload(bench, bench.start(**changes), retention_ratio, seconds)
        bench.release()
        bench.say(f"{name}: {runs[name]['in_flight']} in flight, {runs[name]['tokens_per_second']:.1f} tok/s")
    _report(runs, result)


def overload(bench: Bench, started: StartedEngine, retention_ratio: float, seconds: float) -> dict[str, Any]:
    """Keep ``memory_requests`` requests open, one token a step, for ``seconds``."""
    session, engine = Session(started, WINDOW_SECONDS, watches_memory=True), started.engine
    load = Pressure(bench, session, "overload", bench.scale.memory_requests, 1, retention_ratio)
    ramp_end, ramp_tokens, in_flight = 0.0, 0, 0
    windows: list[dict[str, Any]] = []
    seen_window = -1
    before = engine.stats.committed_tokens
    while session.now < seconds:
        load.step()
        in_flight = max(in_flight, engine.requests_running)
        if not ramp_end and session.now >= RAMP_SHARE * seconds:
            ramp_end, ramp_tokens = session.now, engine.stats.committed_tokens
        for window in session.meter.windows.closed:
            if window.number > seen_window:
                seen_window = window.number
                windows.append({"second": window.number, "running": window.most_running} | window.peak_bytes)
    bench.synchronize()
    measured_seconds, tokens = session.now - ramp_end, engine.stats.committed_tokens
    failures = [served.failure for served in session.served.values() if served.failure]
    session.abandon()
    return {
        "seconds": seconds,
        "requests_finished": sum(served.finished is not None for served in session.served.values()),
        "in_flight": in_flight,
        "tokens_per_second": (tokens - ramp_tokens) / measured_seconds,
        "committed_tokens": tokens - before,
        "oom_events": sum(engine.stats.oom.values()),
        "failures": failures,
        "pages": started.budget.pages,
        "windows": windows,
        "memory": _memory(session, bench.is_cuda),
    }


def _memory(session: Session, is_cuda: bool) -> dict[str, Any]:
    """What was measured when starting, what was seen by owner, and the allocator's own count."""
    started = session.started
    ledger, budget = started.ledger, started.budget
    held = ledger.held()
    profiled = {
        "weights": budget.weights_bytes,
        "kv_pool": held["kv_pool"],
        "activations": started.profile.activations_bytes,
        "logits": started.profile.logits_bytes,
        "other": held["other"],
    }
    return {
        "profiled": profiled,
        "predicted": started.predicted.owners(),
        "seen": ledger.peak_owners(),
        "owned_peak_bytes": session.owned_peak_bytes,
        "device_peak_bytes": session.device_peak_bytes,
        "device_total_bytes": started.memory.total_bytes,
        "reserved_bytes": torch.cuda.memory_reserved() if is_cuda else 0,
    }


def _report(runs: dict[str, dict[str, Any]], result: PartResult) -> None:
    capped, whole, uncapped = runs.values()
    note = f"{capped['seconds']:g} s of overload"
    result.add("requests in flight, capped, r = 0.5", capped["in_flight"], "requests", IN_FLIGHT, note)
    result.add("out-of-memory events, capped, r = 0.5", capped["oom_events"], "events", NO_OOM, note)
    result.add("requests that failed, capped, r = 0.5", len(capped["failures"]), "requests", NO_OOM, note)
    share = capped["tokens_per_second"] / uncapped["tokens_per_second"]
    result.add("throughput, capped", capped["tokens_per_second"], "tok/s")
    result.add("throughput, capped over uncapped", share, "share", UNCAPPED_SHARE)
    result.add("requests in flight, capped, r = 1", whole["in_flight"], "requests")
    ratio = whole["in_flight"] / capped["in_flight"]
    result.add("in flight at r = 1 over r = 0.5", ratio, "share", HALF)
    for name, measured in runs.items():
        _report_memory(name, measured["memory"], result)


def _report_memory(name: str, memory: dict[str, Any], result: PartResult) -> None:
    """The device's own count against what owners held in a step, and against what was measured at the
    start."""
    seen = memory["device_peak_bytes"]
    target = WITHIN if name.startswith("capped") else None
    result.add(f"peak of a step, {name}", seen / GIB, "GiB")
    owned = abs(memory["owned_peak_bytes"] - seen) / seen
    result.add(f"peak by owner against the device's, {name}", owned, "share", target)
    profiled = abs(sum(memory["profiled"].values()) - seen) / seen
    result.add(f"peak profiled at the start against the device's, {name}", profiled, "share", target)
