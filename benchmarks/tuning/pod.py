"""An engine under a memory limit, as the operator's loop sees a pod: metrics as text, a watched file,
restarts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dllm_operator.render.engine_env import tuning_document
from dllm_operator.tuning.pool_start import live_settings, start_settings
from dllm_operator.tuning.reading import PodReading, parse_reading
from dllm_operator.tuning.record import PoolTuning
from dllm_server.engine.process.live_tuning import TuningWatch
from dllm_server.engine.process.loop import growth_limits
from dllm_server.engine.process.snapshot import take_snapshot
from dllm_server.engine.process.startup import StartedEngine
from dllm_server.telemetry.engine_collector import EngineCollector
from prometheus_client import CollectorRegistry, generate_latest

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.pressure import Pressure
from benchmarks.gpu.session import Session


@dataclass(slots=True)
class Pod:
    """``changes`` are the engine's settings over the scale's; a ``tuning`` goes over both, as in a pool that
    has been tuned before. ``requests`` of ``quota`` tokens a step are kept open all the time, more than
    ever run at once."""

    bench: Bench
    changes: dict[str, Any]
    requests: int
    quota: int
    window_seconds: float
    folder: Path
    tuning: PoolTuning | None = None
    started: StartedEngine = field(init=False)
    session: Session = field(init=False)
    watch: TuningWatch = field(init=False)
    load: Pressure = field(init=False)
    out_of_memory: int = 0  # of former processes

    def __post_init__(self) -> None:
        self._start(start_settings(self.tuning) if self.tuning else {})
        if self.tuning is not None:
            self.tell(self.tuning)

    def restart(self, tuning: PoolTuning) -> None:
        """As a rolling restart ends: another process with the settings that the Deployment would carry."""
        self.out_of_memory = self.all_out_of_memory
        self.stop()
        self._start(start_settings(tuning))

    def stop(self) -> None:
        self.session.abandon()
        del self.started, self.session, self.load, self.watch
        self.bench.release()

    def tell(self, tuning: PoolTuning) -> None:
        """Write the file, as the ConfigMap's mount would show it."""
        document = tuning_document(tuning.state.generation, live_settings(tuning))
        self.watch.path.write_text(json.dumps(document, sort_keys=True))

    def run(self, seconds: float) -> None:
        """Under load for so long, the file polled as the server does."""
        until = self.session.now + seconds
        while self.session.now < until:
            live = self.watch.poll()
            if live is not None:
                self.started.engine.retune(live)
                self.session.generation = self.watch.generation
            self.load.step()

    def read(self) -> PodReading:
        """By way of the text of ``/metrics``."""
        windows = self.session.meter.windows.closed
        snapshot = take_snapshot(self.started, windows, self.watch.limits, self.watch)
        registry = CollectorRegistry()
        registry.register(EngineCollector(lambda: snapshot, "benchmark"))
        return parse_reading(generate_latest(registry).decode())

    @property
    def all_out_of_memory(self) -> int:
        return self.out_of_memory + sum(self.started.engine.stats.oom.values())

    @property
    def committed_tokens(self) -> int:
        return self.started.engine.stats.committed_tokens

    def _start(self, tuned: dict[str, Any]) -> None:
        changes = self.changes | tuned
        self.started = self.bench.start(**changes)
        settings = self.bench.settings(**changes)
        self.session = Session(self.started, self.window_seconds)
        name = f"pod-{id(self.session)}"
        self.load = Pressure(
            self.bench, self.session, name, self.requests, self.quota, settings.retention_ratio, varies=True
        )
        self.watch = TuningWatch(self.folder / "tuning.json", growth_limits(settings, self.started))
