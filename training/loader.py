"""Worker processes that prepare steps ahead of the model, in order whatever their number."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue as ProcessQueue
from multiprocessing.synchronize import Event
from typing import TypeAlias

from training.batches import BatchArrays, Batcher

AHEAD = 8

Steps: TypeAlias = "ProcessQueue[list[BatchArrays]]"


@contextmanager
def step_stream(
    batcher: Batcher, first: int, last: int, workers: int
) -> Iterator[Iterator[list[BatchArrays]]]:
    """Micro-batches of the steps first..last-1. Worker w prepares every `workers`-th step from first + w."""
    if workers == 0:
        yield (batcher.step(index) for index in range(first, last))
        return
    context = multiprocessing.get_context("fork")
    stopping = context.Event()
    queues: list[Steps] = [context.Queue(AHEAD) for _ in range(workers)]
    processes = [
        context.Process(
            target=_work, args=(batcher, range(first + w, last, workers), q, stopping), daemon=True
        )
        for w, q in enumerate(queues)
    ]
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for process in processes:
        process.start()
    try:
        yield (queues[(index - first) % workers].get() for index in range(first, last))
    finally:
        stopping.set()
        for process in processes:
            process.terminate()
            process.join()


def _work(batcher: Batcher, steps: range, out: Steps, stopping: Event) -> None:
    for index in steps:
        prepared = batcher.step(index)
        while not stopping.is_set():
            try:
                out.put(prepared, timeout=1.0)
                break
            except queue.Full:
                continue
