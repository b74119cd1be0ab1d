from __future__ import annotations

import asyncio

from dllm_operator.watching.work_queue import WorkQueue

from tests.operator.virtual_time import run_virtual


def test_an_appointment_that_was_overtaken_is_skipped_and_the_queue_goes_on() -> None:
    runs: list[str] = []

    async def handle(key: str) -> None:
        runs.append(key)
        await asyncio.sleep(5)

    async def scenario() -> None:
        queue = WorkQueue(handle)
        worker = asyncio.create_task(queue.run(1))
        queue.add("busy")
        queue.add("chat", 1.0)
        await asyncio.sleep(2)
        for _ in range(3):
            queue.add("chat")
        assert queue.depth == 2
        await asyncio.sleep(100)
        queue.add("later")
        await asyncio.sleep(100)

        assert runs == ["busy", "chat", "later"]
        assert (queue.depth, worker.done()) == (0, False)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    run_virtual(scenario())
