"""Times that the engine's messages carry, of which traces are made."""

from __future__ import annotations

from itertools import pairwise

import pytest
from dllm_server.engine.requests.messages import BlockCommitted, RequestTimes
from engines import make_engine, make_request
from exact_cases import FIXTURES


@pytest.mark.parametrize("fixture", ["llada_mha", "sdar"])
def test_a_blocks_times_follow_each_other_and_those_of_the_block_before(fixture: str) -> None:
    engine = make_engine(FIXTURES / fixture, kv_pool_bytes=4 * 1024**2)
    began = engine.clock()
    engine.submit(make_request(prompt=list(range(1, 41)), max_tokens=24))

    told: list[RequestTimes] = []
    for _ in range(200):
        told += [message.stats.times for message in engine.step() if isinstance(message, BlockCommitted)]

    assert len(told) > 1
    assert {times.admitted_seconds for times in told} == {told[0].admitted_seconds}
    assert began <= told[0].admitted_seconds < told[0].opened_seconds <= told[0].told_seconds
    for before, after in pairwise(told):
        assert before.told_seconds < after.told_seconds
        if fixture == "llada_mha":  # whose blocks begin with a refresh each
            assert before.told_seconds < after.opened_seconds <= after.told_seconds
