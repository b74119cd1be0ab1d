"""What is read after each step: memory by owner and the windows."""

from __future__ import annotations

import time
from collections.abc import Callable

from dllm_server.engine.accounts.ledger import MemoryLedger
from dllm_server.engine.accounts.windows import Load, WindowLog
from dllm_server.engine.engine import Engine


class Meter:
    """Watches an engine that serves. What was held or counted before belongs to no window."""

    def __init__(
        self,
        engine: Engine,
        ledger: MemoryLedger,
        *,
        window_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._ledger = engine, ledger
        self._has_stepped = False
        ledger.discard_peak()
        self.windows = WindowLog(
            window_seconds, clock=clock, unix_start=unix_clock(), held=ledger.held, load=self._load(0)
        )

    def read(self, generation: int) -> None:
        """Call after each ``Engine.step``, also after one that ran nothing. ``generation``: of the tuning."""
        self.windows.note_load(self._load(generation))
        step = self._engine.last_step
        if step is None:
            return
        self._has_stepped = True
        if step.is_out_of_memory:
            self._ledger.discard_peak()
            self.windows.note_step(step, {})
        else:
            self.windows.note_step(step, self._ledger.read_step(step.tokens))

    def settle(self) -> None:
        """Call before a snapshot: without a step since the last one no step holds memory any more."""
        if not self._has_stepped:
            self._ledger.settle()
        self._has_stepped = False

    def _load(self, generation: int) -> Load:
        engine = self._engine
        return Load(
            waiting=engine.requests_waiting,
            running=engine.requests_running,
            free_pages=engine.course.store.free_pages,
            least_step_tokens=engine.floor_tokens,
            generation=generation,
        )
