"""Keys of many tenants: one that brings a thousand at once keeps no other one waiting."""

from __future__ import annotations

import asyncio
from collections import Counter

from dllm_operator.watching.work_queue import WorkQueue
from hypothesis import given
from hypothesis import strategies as st

from tests.operator.virtual_time import run_virtual

Key = tuple[str, str]


def order_of(*added: Key) -> list[Key]:
    """In which one worker takes the keys, all of them added while it was busy."""
    runs: list[Key] = []

    async def handle(key: Key) -> None:
        runs.append(key)
        await asyncio.sleep(1)

    async def scenario() -> None:
        queue: WorkQueue[Key] = WorkQueue(handle, tenant_of=lambda key: key[0])
        worker = asyncio.create_task(queue.run(1))
        queue.add(("busy", "busy"))
        await asyncio.sleep(0.5)
        for key in added:
            queue.add(key)
        await asyncio.sleep(10 * len(added))
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    run_virtual(scenario())
    return runs[1:]


def test_a_burst_of_one_tenant_lets_another_one_in_at_once() -> None:
    burst = [("many", str(number)) for number in range(500)]

    order = order_of(*burst, ("one", "edit"))

    assert order.index(("one", "edit")) <= 1
    assert [key for key in order if key[0] == "many"] == burst


def test_tenants_take_turns() -> None:
    order = order_of(*((tenant, str(number)) for tenant in "abc" for number in range(3)))

    assert [tenant for tenant, _ in order] == list("abcabcabc")


def test_a_tenant_that_was_away_gets_no_turns_for_that() -> None:
    order = order_of(("a", "0"), ("a", "1"), ("a", "2"), ("b", "0"), ("b", "1"), ("b", "2"), ("c", "0"))

    assert order.index(("c", "0")) == 2
    assert order[-1][0] in "ab"


class Crowd:
    """A handler that takes ten seconds, and notes who ran and how many of a tenant did at once."""

    def __init__(self) -> None:
        self.running: set[Key] = set()
        self.starts: dict[Key, float] = {}
        self.most = 0

    async def handle(self, key: Key) -> None:
        self.running.add(key)
        self.starts[key] = asyncio.get_running_loop().time()
        self.most = max(self.most, *Counter(tenant for tenant, _ in self.running).values())
        await asyncio.sleep(10)
        self.running.discard(key)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 4.0]), st.sampled_from("AAAB"), st.integers(0, 9)),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 6),
)
def test_a_tenant_has_half_of_the_workers_and_loses_no_key(
    added: list[tuple[float, str, int]], workers: int
) -> None:
    crowd = Crowd()

    async def scenario() -> None:
        loop, last_added = asyncio.get_running_loop(), dict[Key, float]()
        queue: WorkQueue[Key] = WorkQueue(crowd.handle, tenant_of=lambda key: key[0])
        running = asyncio.create_task(queue.run(workers))
        for pause, tenant, number in added:
            await asyncio.sleep(pause)
            queue.add((tenant, str(number)))
            last_added[tenant, str(number)] = loop.time()
        await asyncio.sleep(1000)
        assert queue.depth == 0
        assert all(crowd.starts[key] >= at for key, at in last_added.items())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_virtual(scenario())
    assert crowd.most <= (workers + 1) // 2


def test_slow_keys_of_one_tenant_leave_a_worker_to_others() -> None:
    async def scenario() -> None:
        crowd = Crowd()
        queue: WorkQueue[Key] = WorkQueue(crowd.handle, tenant_of=lambda key: key[0])
        running = asyncio.create_task(queue.run(4))
        for number in range(100):
            queue.add(("many", str(number)))
        await asyncio.sleep(5)
        queue.add(("one", "edit"))
        await asyncio.sleep(0.1)
        assert ("one", "edit") in crowd.running
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_virtual(scenario())
