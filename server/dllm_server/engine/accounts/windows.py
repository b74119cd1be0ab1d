"""What happened in each of the last stretches of fixed length, the same for every reader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from dllm_server.engine.requests.messages import Window

KEPT_WINDOWS = 12


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step: ``tokens`` are query tokens of ``requests``, ``logits_rows`` the most rows projected at once;
    ``is_tight``: a request had to stay out for its tokens. A step that ran out of memory did nothing
    (``is_out_of_memory``)."""

    tokens: int
    requests: int
    logits_rows: int
    committed_tokens: int
    batch_fill: float
    is_tight: bool = False
    is_out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """The engine between two steps. ``least_step_tokens`` is the most that one of the requests in
    flight needs at once."""

    waiting: int
    running: int
    free_pages: int
    least_step_tokens: int
    generation: int


@dataclass(slots=True)
class _Open:
    """The sums of the window that is not over."""

    load: Load
    has_one_generation: bool = True
    peak: dict[str, int] = field(default_factory=dict)
    peak_bytes: int = 0
    peak_step: StepRecord | None = None
    steps: int = 0
    tokens: int = 0
    step_requests: int = 0
    committed_tokens: int = 0
    oom: int = 0
    tight_steps: int = 0
    batch_fill: float = 0.0


class WindowLog:
    """Windows of ``length_seconds``, numbered from 0; the last ``KEPT_WINDOWS`` that are over are kept.

    Bounds are ``unix_start`` plus whole lengths on ``clock`` (monotonic), so a change of the wall clock moves
    none, and a window that is closed late has the right bounds. A step belongs to the window in which it
    ended. ``held`` gives the bytes by owner that are held between steps.
    """

    def __init__(
        self,
        length_seconds: float,
        *,
        clock: Callable[[], float],
        unix_start: float,
        held: Callable[[], dict[str, int]],
        load: Load,
    ) -> None:
        self._length, self._clock, self._held = length_seconds, clock, held
        self._origin, self._unix_start = clock(), unix_start
        self._number = 0
        self._open, self._last_load = _Open(load), load
        self._closed: deque[Window] = deque(maxlen=KEPT_WINDOWS)

    @property
    def closed(self) -> list[Window]:
        """The kept windows, oldest first."""
        return list(self._closed)

    def note_load(self, load: Load) -> None:
        """The state between steps: closes what is over and keeps the extremes."""
        while self._clock() >= self._origin + (self._number + 1) * self._length:
            self._close()
        seen = self._open.load
        self._open.has_one_generation &= seen.generation == load.generation
        self._open.load = Load(
            waiting=max(seen.waiting, load.waiting),
            running=max(seen.running, load.running),
            free_pages=min(seen.free_pages, load.free_pages),
            least_step_tokens=max(seen.least_step_tokens, load.least_step_tokens),
            generation=load.generation,
        )
        self._last_load = load

    def note_step(self, step: StepRecord, peak: dict[str, int]) -> None:
        """A step has ended with ``peak`` bytes by owner; call ``note_load`` first."""
        window = self._open
        if step.is_out_of_memory:
            window.oom += 1
            return
        window.steps += 1
        window.tokens += step.tokens
        window.step_requests += step.requests
        window.committed_tokens += step.committed_tokens
        window.tight_steps += step.is_tight
        window.batch_fill += step.batch_fill
        held = sum(value for owner, value in peak.items() if owner != "free")
        if held > window.peak_bytes:
            window.peak_bytes, window.peak, window.peak_step = held, peak, step

    def _close(self) -> None:
        window, load, step = self._open, self._open.load, self._open.peak_step
        start = self._unix_start + self._number * self._length
        self._closed.append(
            Window(
                number=self._number,
                start_seconds=start,
                end_seconds=start + self._length,
                generation=load.generation if window.has_one_generation else -1,
                peak_bytes=window.peak or self._held(),
                peak_step_tokens=step.tokens if step else 0,
                peak_step_logits_rows=step.logits_rows if step else 0,
                steps=window.steps,
                tokens=window.tokens,
                step_requests=window.step_requests,
                committed_tokens=window.committed_tokens,
                oom=window.oom,
                most_waiting=load.waiting,
                most_running=load.running,
                least_free_pages=load.free_pages,
                least_step_tokens=load.least_step_tokens,
                tight_steps=window.tight_steps,
                mean_batch_fill=window.batch_fill / window.steps if window.steps else 0.0,
            )
        )
        self._number += 1
        self._open = _Open(self._last_load)
