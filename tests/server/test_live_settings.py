"""Live settings may change between any two steps: the answers stay, the limits hold at once."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from checkpoints import Size, make_checkpoint
from dllm_server.engine.engine import Engine
from engines import make_engine, make_request, run_all
from faulty_runner import install
from mixes import make_mix

CHANGES: dict[str, list[Any]] = {
    "max_num_batched_tokens": [1, 60, 512],
    "max_num_seqs": [1, 3, 16],
    "max_num_logits": [1, 5, 2048],
    "refresh_share": [0.01, 0.3, 1.0],
    "admission_watermark": [0.0, 0.9],
}


@cache
def engine() -> Engine:
    return make_engine(make_checkpoint(Path(mkdtemp(prefix="dllm-test-")), Size(n_kv_heads=2)))


def change(subject: Engine, **values: Any) -> None:
    subject.retune(subject.live.model_copy(update=values))


@pytest.mark.parametrize("name", CHANGES)
def test_changing_a_setting_while_running_changes_no_answer(name: str) -> None:
    subject, requests, dice = engine(), make_mix(20, seed=3), random.Random(4)
    start = subject.live
    expected = run_all(subject, requests)

    outcomes = run_all(
        subject, requests, after_step=lambda step: change(subject, **{name: dice.choice(CHANGES[name])})
    )

    subject.live = start
    assert {n: o.tokens for n, o in outcomes.items()} == {n: o.tokens for n, o in expected.items()}


def test_a_smaller_token_budget_holds_from_the_next_step() -> None:
    subject = engine()
    start, runner = subject.live, install(subject)
    for number in range(12):
        subject.submit(make_request(str(number), prompt=[1] * 20, max_tokens=20))
    subject.step()

    change(subject, max_num_batched_tokens=50)
    run_all(subject, [])

    subject.live = start
    assert runner.rows[0] > 50
    assert max(runner.rows[1:]) <= 50


def test_fewer_sequences_let_running_requests_finish_and_admit_no_more() -> None:
    subject = engine()
    start = subject.live
    for number in range(10):
        subject.submit(make_request(str(number)))
    subject.step()
    assert subject.requests_running == 10
    subject.submit(make_request("late"))

    change(subject, max_num_seqs=1)
    running = []
    run_all(subject, [], after_step=lambda step: running.append(subject.requests_running))

    subject.live = start
    assert running[0] == 10
    emptied = running.index(0)
    assert all(left >= right for left, right in pairwise(running[:emptied]))
    assert set(running[emptied:]) == {0, 1}


def test_sequences_raised_again_are_admitted_up_to_the_start_value() -> None:
    subject = engine()
    start = subject.live
    for number in range(16):
        subject.submit(make_request(str(number), prompt=[1], max_tokens=16))
    change(subject, max_num_seqs=2)
    subject.step()
    running_at_two = subject.requests_running

    change(subject, max_num_seqs=start.max_num_seqs)
    subject.step()
    running_at_start = subject.requests_running
    run_all(subject, [])

    subject.live = start
    assert (running_at_two, running_at_start) == (2, start.max_num_seqs)


def test_a_budget_below_the_longest_sequence_leaves_no_request_stuck() -> None:
    subject = engine()
    start = subject.live
    requests = [make_request(str(n), prompt=[n] * (10 + 40 * (n % 3)), max_tokens=24) for n in range(9)]
    expected = run_all(subject, requests)
    for request in requests[:5]:
        subject.submit(request)
    subject.step()

    change(subject, max_num_batched_tokens=1)
    floor = subject.floor_tokens
    outcomes = run_all(subject, requests[5:])

    subject.live = start
    assert floor == 10 + 40 * 2 + 24
    assert {n: outcomes[n].tokens for n in "5678"} == {n: expected[n].tokens for n in "5678"}
    assert not subject.has_work
