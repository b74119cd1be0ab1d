"""Requests that come when they come: latency at a share of saturation, bursts, refresh staggering, overload
and recovery, and the static batcher under the same arrivals."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from dllm_server.load.lengths import PROFILES

from benchmarks.gpu.arrivals import random_job
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult, Target
from benchmarks.gpu.latency import latencies
from benchmarks.gpu.load_run import RETENTION_RATIO, SEED, LoadRun, make_arrivals, serve
from benchmarks.gpu.offline import short_requests
from benchmarks.gpu.recovery import recovery_seconds
from benchmarks.gpu.session import Sample, run_all
from benchmarks.gpu.staggering import COMPARED, ratios, without_staggering
from benchmarks.gpu.static import largest_batch, serve_static

TAIL = Target(7, 0.25, is_ceiling=True)
WORSE = Target(7, 1.0)
RECOVERS = Target(7, 1.0)


def run(bench: Bench, result: PartResult) -> None:
    """All that the engine serves first, then the static batcher with the device to itself."""
    load = bench.scale.open_loop
    part = OpenLoopPart(bench, result)
    for profile in load.profiles:
        rate = part.saturated[profile] = saturation(bench, profile)
        result.add(f"{profile}: saturation", rate, "requests/s", note=f"{load.quota} tokens a step")
        for process in load.processes:
            part.spread[profile, process] = part.serve(profile, process, load.load_share, load.load_seconds)
        bench.check_time(f"profile {profile}")
    for share in load.sweep_shares:
        part.serve(load.profiles[0], "poisson", share, load.sweep_seconds)
    part.refreshes_at_once(load.profiles[-1])
    part.overload(load.profiles[0])
    for profile in load.profiles:
        bench.check_time(f"the engine's runs; the static batcher's from {profile} on are missing")
        part.static(profile)


def saturation(bench: Bench, profile: str) -> float:
    """Requests a second with a queue that does not run dry: all submitted at once."""
    load, rng = bench.scale.open_loop, random.Random(SEED)
    lengths, vocabulary = PROFILES[profile], bench.scale.model["vocab_size"]
    requests = [
        random_job(lengths.prompt_tokens(rng), lengths.max_tokens, vocabulary, rng).request(
            f"saturation-{profile}-{index}",
            load.quota,
            block=bench.scale.block,
            retention_ratio=RETENTION_RATIO,
        )
        for index in range(load.saturation_requests)
    ]
    session = run_all(bench.engine(), requests)
    rate = busy_rate(session.samples) / lengths.max_tokens
    bench.say(f"{profile}: saturated at {rate:.2f} requests/s")
    return rate


def busy_rate(samples: list[Sample]) -> float:
    """Tokens a second between 10% and 70% of all tokens: after the first refreshes, while the batch is
    full."""
    total = sum(sample.committed_tokens for sample in samples)
    committed, start = 0, (0.0, 0)
    for sample in samples:
        committed += sample.committed_tokens
        if not start[1] and committed >= 0.1 * total:
            start = (sample.seconds, committed)
        if committed >= 0.7 * total and sample.seconds > start[0]:
            return (committed - start[1]) / (sample.seconds - start[0])
    return total / samples[-1].seconds


@dataclass(slots=True)
class OpenLoopPart:
    """``saturated`` requests a second by profile; ``spread``: the engine's runs at the load's share, by
    profile and process."""

    bench: Bench
    result: PartResult
    saturated: dict[str, float] = field(default_factory=dict)
    spread: dict[tuple[str, str], LoadRun] = field(default_factory=dict)

    def serve(self, profile: str, process: str, share: float, seconds: float, label: str = "") -> LoadRun:
        """The engine under steady load."""
        rate = self.saturated[profile]
        coming = make_arrivals(self.bench, profile, process, [(seconds, share * rate)])
        name = f"{profile}, {process}, {share:.0%} of saturation{label}"
        run = serve(
            self.bench,
            coming,
            name=name,
            profile=profile,
            process=process + label,
            share=share,
            saturated=rate,
        )
        self._keep(run)
        return run

    def refreshes_at_once(self, profile: str) -> None:
        """The same arrivals with refreshes spread and with all of them in the step in which they are due.

        The work is the same, so that the end of a request hardly moves; what a long step of many refreshes
        holds up is every other request's next block.
        """
        load = self.bench.scale.open_loop
        with without_staggering(self.bench):
            run_all(self.bench.engine(), short_requests(self.bench, RETENTION_RATIO))
            for process in load.processes:
                label = ", refreshes at once"
                at_once = self.serve(profile, process, load.load_share, load.load_seconds, label)
                spread = self.spread[profile, process]
                bounds = [f"; {run.name}: {run.bound}" for run in (at_once, spread) if run.bound]
                for name, ratio in ratios(at_once.found, spread.found).items():
                    figure = f"{profile}, {process}: {name} without staggering over with"
                    note = f"above 1 staggering helps; {COMPARED[name]}{''.join(bounds)}"
                    self.result.add(figure, ratio, "times", WORSE if name == "gap_p99" else None, note)

    def overload(self, profile: str) -> None:
        """A part of the saturation, then beyond it, then the part again: when is the queue empty?"""
        load, rate = self.bench.scale.open_loop, self.saturated[profile]
        calm, before = load.recovery_share * rate, load.overload_seconds / 4
        end = before + load.overload_seconds
        phases = [
            (before, calm),
            (load.overload_seconds, load.overload_share * rate),
            (load.recovery_seconds, calm),
        ]
        name = f"{profile}, {load.overload_seconds:g} s at {load.overload_share:.0%} of saturation"
        run = serve(
            self.bench,
            make_arrivals(self.bench, profile, "poisson", phases),
            name=name,
            profile=profile,
            process="overload",
            share=load.overload_share,
            saturated=rate,
        )
        seconds = recovery_seconds(run.samples, end)
        self._keep(run, recovery_seconds=seconds, overload=[before, end])
        note = f"then {load.recovery_share:.0%} of saturation; {run.found.failed_requests} requests failed"
        is_well = seconds is not None and not run.found.failed_requests
        self.result.add(f"{name}: recovers", float(is_well), "(1 is yes)", RECOVERS, note)
        if seconds is not None:
            self.result.add(f"{name}: until the queue is empty again", seconds, "s", note=note)

    def static(self, profile: str) -> None:
        """The static batcher under the Poisson arrivals that the engine got. Where the cut leaves requests
        open, its tail is a lower bound, and so the ratio an upper one."""
        load, rate = self.bench.scale.open_loop, self.saturated[profile]
        coming = make_arrivals(self.bench, profile, "poisson", [(load.load_seconds, load.load_share * rate)])
        batch = largest_batch(self.bench, coming)
        served, cut = serve_static(self.bench, coming, load.quota, batch, load.static_seconds)
        found = latencies(served, cut)
        name = f"{profile}, poisson, {load.load_share:.0%} of saturation, static batches of {batch}"
        tokens = sum(request.tokens for request in served)
        run = LoadRun(name, "static", profile, "poisson", load.load_share, rate, cut, found, tokens)
        self._keep(run)
        engine = self.spread[profile, "poisson"]
        bounds = [("static batcher", run.bound), ("engine", engine.bound)]
        note = "; ".join(f"{system}: {bound}" for system, bound in bounds if bound)
        ratio = engine.found.p99 / found.p99
        self.result.add(f"{profile}: engine's p99 over the static batcher's", ratio, "times", TAIL, note)
        self.bench.say(f"{name}: p50 {found.p50:.2f} s, p99 {found.p99:.2f} s {run.bound}")

    def _keep(self, run: LoadRun, **more: object) -> None:
        self.result.data.setdefault("runs", []).append(run.record() | more)
        run.report(self.result)
