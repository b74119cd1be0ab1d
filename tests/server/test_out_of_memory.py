"""Out-of-memory errors of the device: who survives, and that the answers stay the same."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from checkpoints import Size, make_checkpoint
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import Failed, FailureReason, Generate
from dllm_server.engine.schedule.throttle import OOM_RECOVERY_STEPS
from engines import Outcome, collect, make_engine, make_request, run_all, run_alone, used_pages
from faulty_runner import AllocationFailure, install
from mixes import make_mix

PARTS = 4  # of the operations, so that a run may take some


@cache
def engine_of(family: str) -> Engine:
    directory = make_checkpoint(Path(mkdtemp(prefix="dllm-test-")), Size(family=family, n_kv_heads=2))
    return make_engine(directory)


def fresh(family: str = "llada") -> Engine:
    """The family's engine without a trace of earlier errors."""
    engine = engine_of(family)
    engine.throttle = type(engine.throttle)()
    return engine


def make_requests() -> list[Generate]:
    return [make_request(str(n), prompt=[n] * (4 + n), max_tokens=16) for n in range(6)]


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("at", range(12))
def test_an_error_in_any_one_step_loses_no_request_and_changes_no_answer(family: str, at: int) -> None:
    engine, requests = fresh(family), make_mix(12, seed=11)
    install(engine)
    expected = run_all(engine, requests)
    engine = fresh(family)
    runner = install(engine, {at})

    outcomes = run_all(engine, requests)

    assert len(runner.rows) > at
    assert {n: o.tokens for n, o in outcomes.items()} == {n: o.tokens for n, o in expected.items()}
    assert used_pages(engine) == 0


@pytest.mark.sampled(0.25)
@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("part", range(PARTS))
def test_an_error_in_any_tensor_operation_of_a_step_changes_no_answer(part: int, family: str) -> None:
    engine, requests = (
        fresh(family),
        [
            make_request(str(n), prompt=[n] * 5, max_tokens=5, value=3, temperature=n, top_logprobs=n)
            for n in range(2)
        ],
    )
    install(engine)
    expected = {n: o.tokens for n, o in run_all(engine, requests).items()}
    at, step = part, 0
    while step < 2:  # a refresh, then a reuse; every operation of each, over all parts
        engine, outcomes = fresh(family), dict[str, Outcome]()
        for request in requests:
            collect(engine.submit(request), outcomes)
        for _ in range(step):
            collect(engine.step(), outcomes)
        with AllocationFailure(at) as failure:
            collect(engine.step(), outcomes)
        while engine.has_work:
            collect(engine.step(), outcomes)
        assert {n: o.tokens for n, o in outcomes.items()} == expected, f"operation {at} of step {step}"
        at, step = (at + PARTS, step) if failure.count > at else (part, step + 1)


def test_a_request_alone_survives_an_error_that_passes() -> None:
    engine = fresh()
    install(engine, {0, 3, 5})

    assert run_alone(engine, make_request(max_tokens=32)).is_complete


def test_an_error_halves_the_token_budget_and_quiet_steps_bring_it_back() -> None:
    engine = fresh()
    install(engine, {0})
    for request in make_requests():
        engine.submit(request)
    tokens = sum(len(request.prompt) + request.max_tokens for request in make_requests())

    engine.step()
    shrunk = engine.token_budget
    run_all(engine, [])
    for number in range(3 * OOM_RECOVERY_STEPS):
        if not engine.has_work:
            engine.submit(make_request(f"later {number}", max_tokens=60, value=1))
        engine.step()
    run_all(engine, [])

    assert shrunk == tokens // 2
    assert engine.token_budget == engine.live.max_num_batched_tokens


def test_an_error_that_stays_fails_every_request_with_out_of_memory() -> None:
    engine = fresh()
    install(engine, range(1000))

    outcomes = run_all(engine, make_requests())

    ends = [outcome.end for outcome in outcomes.values()]
    assert len(ends) == 6
    assert all(isinstance(end, Failed) and end.reason is FailureReason.OUT_OF_MEMORY for end in ends)
    assert used_pages(engine) == 0


class SmallDevice:
    """Refuses every run of more than ``tokens`` rows."""

    def __init__(self, rows: list[int], tokens: int) -> None:
        self.rows, self.tokens = rows, tokens

    def __contains__(self, number: object) -> bool:
        return self.rows[-1] > self.tokens


def test_only_the_request_that_cannot_fit_fails() -> None:
    engine = fresh()
    runner = install(engine)
    runner.refuse = SmallDevice(runner.rows, 60)  # type: ignore[assignment]
    requests = [*make_requests(), make_request("large", prompt=[1] * 80, max_tokens=8)]

    outcomes = run_all(engine, requests)

    assert isinstance(outcomes["large"].end, Failed)
    assert [name for name, outcome in outcomes.items() if not outcome.is_complete] == ["large"]


def test_another_error_is_not_taken_for_out_of_memory() -> None:
    engine = make_engine(Path(engine_directory()))

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    engine.runner.launch = broken  # type: ignore[method-assign,assignment]
    engine.submit(make_request())

    with pytest.raises(RuntimeError, match="a bug"):
        engine.step()


def engine_directory() -> str:
    return str(make_checkpoint(Path(mkdtemp(prefix="dllm-test-")), Size()))
