"""An engine process whose device runs out of memory: ``python faulty_engine.py MOMENT ENDPOINT SETTINGS
LOGS PARENT``, where MOMENT is ``start`` or ``submit``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from dllm_server.engine.engine import Engine
from dllm_server.engine.process.loop import serve_engine
from dllm_server.engine.process.startup import StartedEngine, start
from dllm_server.engine.requests.messages import FromEngine, Generate
from dllm_server.logs import configure_logging
from dllm_server.settings import EngineSettings, LogSettings
from faulty_runner import AllocationFailure


def start_without_memory(settings: EngineSettings, **options: Any) -> StartedEngine:
    """The real start, whose first tensor is refused."""
    with AllocationFailure(at=0):
        return start(settings, **options)


def start_and_fail_later(settings: EngineSettings, **options: Any) -> StartedEngine:
    """The real start of an engine that runs out of memory where nothing contains it."""
    started = start(settings, **options)
    return replace(started, engine=RefusingEngine(started.engine))  # type: ignore[arg-type]


@dataclass
class RefusingEngine:
    """Wraps a real engine, and has no memory for a request."""

    inner: Engine

    def submit(self, request: Generate) -> list[FromEngine]:
        raise torch.OutOfMemoryError("injected")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


if __name__ == "__main__":
    moment, endpoint, text, logs, _ = sys.argv[1:]
    configure_logging(LogSettings.model_validate_json(logs))
    faulty_start = {"start": start_without_memory, "submit": start_and_fail_later}[moment]
    sys.exit(serve_engine(endpoint, EngineSettings.model_validate_json(text), start=faulty_start))
