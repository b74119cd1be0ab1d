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
    """Keeps ``requests`` of the offline shape open in a session.

    ``varies``: of every sequence 1 to 2 ``max_tokens`` - 1 tokens are generated, as many as any other, and
    the rest is prompt. Else requests that were admitted together refresh together for good.
    """

    bench: Bench
    session: Session
    name: str
    requests: int
    quota: int
    retention_ratio: float
    varies: bool = False
    _rng: random.Random = field(default_factory=lambda: random.Random(11))
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def step(self) -> None:
        """Fill up, then one turn of the engine's loop."""
        engine = self.session.started.engine
        for _ in range(self.requests - engine.requests_running - engine.requests_waiting):
            name = f"{self.name}-{next(self._numbers)}"
            self.session.submit(
                random_request(
                    self.bench, self._rng, name, self.quota, self.retention_ratio, self._max_tokens()
                )
            )
        self.session.step()

    def _max_tokens(self) -> int | None:
        scale = self.bench.scale
        most = min(2 * scale.max_tokens, scale.prompt_tokens + scale.max_tokens)
        return self._rng.randrange(1, most) if self.varies else None
