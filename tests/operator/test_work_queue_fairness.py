"""Keys of many tenants: one that brings a thousand at once keeps no other one waiting."""

from __future__ import annotations

import asyncio

from dllm_operator.watching.work_queue import WorkQueue

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
