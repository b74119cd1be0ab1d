"""Windows of fixed length: their bounds, what they hold, and what belongs to none."""

from __future__ import annotations

from dllm_server.engine.accounts.windows import KEPT_WINDOWS, Load, StepRecord, WindowLog

HELD = {"weights": 50, "activations": 0, "free": 50}


class Clock:
    def __init__(self) -> None:
        self.seconds = 500.0

    def __call__(self) -> float:
        return self.seconds


def make_load(*, waiting: int = 0, running: int = 0, free: int = 9, generation: int = 0) -> Load:
    return Load(waiting, running, free, least_step_tokens=0, generation=generation)


def make_log(clock: Clock) -> WindowLog:
    return WindowLog(10.0, clock=clock, unix_start=7000.0, held=lambda: HELD, load=make_load())


def make_step(tokens: int, *, fill: float = 0.5, is_out_of_memory: bool = False) -> StepRecord:
    return StepRecord(tokens, 5, 3, 2, fill, fill == 1.0, is_out_of_memory)


def peak(activations: int) -> dict[str, int]:
    return HELD | {"activations": activations, "free": 50 - activations}


def test_an_idle_window_that_is_closed_late_has_its_own_bounds() -> None:
    clock = Clock()
    log = make_log(clock)

    clock.seconds += 23
    log.note_load(make_load())

    assert [(w.number, w.start_seconds, w.end_seconds) for w in log.closed] == [
        (0, 7000.0, 7010.0),
        (1, 7010.0, 7020.0),
    ]
    assert all((w.steps, w.peak_step_tokens, w.peak_bytes) == (0, 0, HELD) for w in log.closed)


def test_a_window_holds_its_steps_and_names_the_one_that_made_the_peak() -> None:
    clock = Clock()
    log = make_log(clock)
    for tokens, activations, fill in ((10, 4, 0.2), (30, 20, 0.6), (40, 7, 1.0)):
        log.note_load(make_load(waiting=tokens, running=2, free=tokens // 10))
        log.note_step(make_step(tokens, fill=fill), peak(activations))
    log.note_load(make_load())
    log.note_step(make_step(1000, is_out_of_memory=True), {})
    clock.seconds += 10
    log.note_load(make_load())

    (window,) = log.closed
    assert (window.peak_bytes, window.peak_step_tokens) == (peak(20), 30)
    assert (window.steps, window.tokens, window.committed_tokens, window.oom) == (3, 80, 6, 1)
    assert (window.most_waiting, window.most_running, window.least_free_pages) == (40, 2, 1)
    assert abs(window.mean_batch_fill - 0.6) < 1e-9
    assert (window.tight_steps, window.step_requests) == (1, 15)


def test_a_peak_belongs_to_one_window_only() -> None:
    clock = Clock()
    log = make_log(clock)
    log.note_step(make_step(30), peak(20))
    clock.seconds += 20
    log.note_load(make_load())

    assert [w.peak_bytes for w in log.closed] == [peak(20), HELD]


def test_a_window_in_which_the_generation_changed_says_so() -> None:
    clock = Clock()
    log = make_log(clock)
    log.note_load(make_load(generation=4))
    clock.seconds += 20
    log.note_load(make_load(generation=4))

    assert [w.generation for w in log.closed] == [-1, 4]


def test_only_the_last_windows_are_kept() -> None:
    clock = Clock()
    log = make_log(clock)
    clock.seconds += 10 * 100
    log.note_load(make_load())

    assert [w.number for w in log.closed] == list(range(100 - KEPT_WINDOWS, 100))
