"""A model runner whose device runs out of memory when told to, and that writes down what each step did."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from dllm_server.engine.device.model_runner import ModelRunner, PendingStep
from dllm_server.engine.engine import Engine
from dllm_server.engine.schedule.batch import StepBatch
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass
class FaultyRunner:
    """Wraps a real runner. ``refuse`` holds the numbers of the runs that raise, counted from 0."""

    inner: ModelRunner
    refuse: Collection[int] = ()
    rows: list[int] = field(default_factory=list)

    def launch(self, batch: StepBatch, max_num_logits: int) -> PendingStep:
        number = len(self.rows)
        self.rows.append(batch.rows)
        if number in self.refuse:
            raise torch.OutOfMemoryError("injected")
        return self.inner.launch(batch, max_num_logits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def install(engine: Engine, refuse: Collection[int] = ()) -> FaultyRunner:
    """Put a ``FaultyRunner`` into the engine, in place of the real one or of an earlier wrapper."""
    inner = engine.runner.inner if isinstance(engine.runner, FaultyRunner) else engine.runner
    runner = FaultyRunner(inner, refuse)
    engine.runner = runner  # type: ignore[assignment]
    return runner


_ALLOCATES_NOTHING = {"lift_fresh", "slice", "select", "view", "copy_", "detach"}


class AllocationFailure(TorchDispatchMode):
    """Raises in the tensor operation number ``at``; None counts operations only."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self.at, self.count = at, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket.__name__ in _ALLOCATES_NOTHING:
            return func(*args, **(kwargs or {}))
        number, self.count = self.count, self.count + 1
        if number == self.at:
            raise torch.OutOfMemoryError("injected")
        return func(*args, **(kwargs or {}))
