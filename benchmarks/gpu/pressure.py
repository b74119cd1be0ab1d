"""A queue that never runs dry."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.offline import random_request
from benchmarks.gpu.session import Session


@dataclass(slots=True)
class Pressure:
    """Keeps ``requests`` of the offline shape open in a session."""

    bench: Bench
    session: Session
    name: str
    requests: int
    quota: int
    retention_ratio: float
    _rng: random.Random = field(default_factory=lambda: random.Random(11))
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def step(self) -> None:
        """Fill up, then one turn of the engine's loop."""
        engine = self.session.started.engine
        for _ in range(self.requests - engine.requests_running - engine.requests_waiting):
            name = f"{self.name}-{next(self._numbers)}"
            request = random_request(self.bench, self._rng, name, self.quota, self.retention_ratio)
            self.session.submit(request)
        self.session.step()
