"""Drives an engine as its process does: take what has arrived, step, read the meter, hand messages on.

Of the server's loop only the socket and the encoding of messages are left out. Arrivals keep to the real
clock and are taken between steps, as there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dllm_server.engine.process.meter import Meter
from dllm_server.engine.process.startup import StartedEngine
from dllm_server.engine.requests.messages import BlockCommitted, Failed, Finished, FromEngine, Generate

IDLE_SECONDS = 0.002
SETTLE_SECONDS = 0.1


@dataclass(slots=True)
class Served:
    """One request's times since the session began. ``None``: not yet. ``blocks``: when each was published."""

    arrived: float
    first_block: float | None = None
    finished: float | None = None
    tokens: int = 0
    failure: str = ""
    blocks: list[float] = field(default_factory=list)


class Sample(NamedTuple):
    """A step's query tokens in the long phase and in the short one, the engine's load after it, and how long
    it took."""

    seconds: float
    long_tokens: int
    short_tokens: int
    committed_tokens: int
    running: int
    waiting: int
    step_seconds: float = 0.0  # by the engine's own count: the device's, where steps are launched ahead


@dataclass(slots=True)
class Session:
    """``served`` by request id, in the order of arrival; ``samples`` one a step.

    With ``watches_memory``, ``device_peak_bytes`` and ``owned_peak_bytes`` are the most that the device's own
    count showed and that the ledger's owners held, in any step. The count is read before the ledger resets
    it.
    """

    started: StartedEngine
    window_seconds: float = 10.0
    served: dict[str, Served] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic
    watches_memory: bool = False
    generation: int = 0  # of the live settings, for the windows
    device_peak_bytes: int = 0
    owned_peak_bytes: int = 0
    meter: Meter = field(init=False)
    _began: float = field(init=False)
    _settle_due: float = 0.0

    def __post_init__(self) -> None:
        self.meter = Meter(self.started.engine, self.started.ledger, window_seconds=self.window_seconds)
        self._began = self.clock()

    @property
    def now(self) -> float:
        return self.clock() - self._began

    def submit(self, request: Generate, arrived: float | None = None) -> None:
        self.served[request.request_id] = Served(self.now if arrived is None else arrived)
        self._note(self.started.engine.submit(request))

    def step(self) -> None:
        """One turn of the loop."""
        engine = self.started.engine
        stats = engine.stats
        long, short = stats.phases
        long_tokens, short_tokens = stats.tokens[long], stats.tokens[short]
        committed = stats.committed_tokens
        seconds = stats.seconds
        self._note(engine.step())
        if self.watches_memory:
            self.device_peak_bytes = max(self.device_peak_bytes, self.started.memory.peak_bytes())
        self.meter.read(self.generation)
        if self.watches_memory:
            owners = self.started.ledger.owners()
            self.owned_peak_bytes = max(self.owned_peak_bytes, sum(owners.values()) - owners["free"])
        now = self.now
        if now >= self._settle_due:
            self._settle_due = now + SETTLE_SECONDS
            self.meter.settle()
        sample = Sample(
            now,
            stats.tokens[long] - long_tokens,
            stats.tokens[short] - short_tokens,
            stats.committed_tokens - committed,
            engine.requests_running,
            engine.requests_waiting,
            stats.seconds - seconds,
        )
        if sample.long_tokens or sample.short_tokens:
            self.samples.append(sample)

    def run_until_empty(self, until: float = float("inf")) -> None:
        while self.started.engine.has_work and self.now < until:
            self.step()

    def replay(self, requests: Iterable[tuple[float, Generate]], until: float) -> None:
        """Submit each request at its time and step until all is done, or until ``until``."""
        engine, coming = self.started.engine, list(requests)
        taken = 0
        while self.now < until and (taken < len(coming) or engine.has_work):
            while taken < len(coming) and coming[taken][0] <= self.now:
                self.submit(coming[taken][1], coming[taken][0])
                taken += 1
            if engine.has_work:
                self.step()
            else:
                time.sleep(min(IDLE_SECONDS, max(coming[taken][0] - self.now, 0.0)))

    def abandon(self) -> None:
        """Cancel what is still open, so that the next session finds an empty engine."""
        engine = self.started.engine
        for request_id, served in self.served.items():
            if served.finished is None:
                engine.cancel(request_id)
        while engine.has_work:
            engine.step()

    def _note(self, messages: Sequence[FromEngine]) -> None:
        now = self.now
        for message in messages:
            match message:
                case BlockCommitted(request_id, token_ids):
                    served = self.served[request_id]
                    served.tokens += len(token_ids)
                    served.blocks.append(now)
                    served.first_block = now if served.first_block is None else served.first_block
                case Finished(request_id):
                    self.served[request_id].finished = now
                case Failed(request_id, reason, text):
                    self.served[request_id].finished = now
                    self.served[request_id].failure = f"{reason}: {text}"


def run_all(started: StartedEngine, requests: Sequence[Generate]) -> Session:
    """Submit all at once and step until none is left; a request that failed raises."""
    session = Session(started)
    for request in requests:
        session.submit(request, 0.0)
    session.run_until_empty()
    failures = [served.failure for served in session.served.values() if served.failure]
    if failures:
        raise RuntimeError(f"{len(failures)} requests failed, the first with {failures[0]}")
    return session
