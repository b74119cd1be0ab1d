"""What the parts of a run share: one loaded model at a time, and the time that is left."""

from __future__ import annotations

import gc
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from dllm_server.engine.process.startup import StartedEngine, pick_device, pick_dtype, start
from dllm_server.models.config import ModelConfig
from dllm_server.models.loader import dummy_model
from dllm_server.models.registry import find_family
from dllm_server.models.transformer import Transformer
from dllm_server.settings import EngineSettings
from rich.console import Console

from benchmarks.gpu.scale import Scale
from benchmarks.vocabulary import write_tokenizer


@dataclass(slots=True)
class Deadline:
    """Loops ask ``is_over`` and stop early, so that what was measured so far is kept."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @property
    def is_over(self) -> bool:
        return self.elapsed >= self.seconds


class Bench:
    """Holds either an engine with its model or a bare model, so that both systems have the device to
    themselves."""

    def __init__(self, scale: Scale, changes: dict[str, Any], console: Console) -> None:
        self.scale, self._changes, self._console = scale, changes, console
        self._folder = tempfile.TemporaryDirectory(prefix="dllm-benchmark-")
        Path(self._folder.name, "config.json").write_text(json.dumps(scale.model))
        self._started: StartedEngine | None = None
        self._model: Transformer | None = None
        self.deadline = Deadline(0.0)

    @property
    def config(self) -> ModelConfig:
        return find_family(self.scale.model)[1]

    @property
    def is_cuda(self) -> bool:
        return bool(self.scale.settings["device"] == "cuda")

    @property
    def device(self) -> torch.device:
        return pick_device(self.settings().device)

    def say(self, text: str) -> None:
        self._console.print(f"[{self.deadline.elapsed:6.1f} s] {text}", highlight=False, markup=False)

    def check_time(self, done: str) -> None:
        """Raise when the part's time is over; ``done`` says how far it came."""
        if self.deadline.is_over:
            raise TimeoutError(f"the time limit of {self.deadline.seconds:g} s is over after {done}")

    def settings(self, **changes: Any) -> EngineSettings:
        """The scale's settings with those of the command line over ``changes``."""
        fixed = {"model": self._folder.name, "load_format": "dummy"}
        return EngineSettings.model_validate(self.scale.settings | changes | fixed | self._changes)

    def engine(self) -> StartedEngine:
        """The engine that most parts share; the first call starts it."""
        if self._started is None:
            self._started = self.start()
        return self._started

    def start(
        self, model: dict[str, Any] | None = None, *, has_tokenizer: bool = False, **changes: Any
    ) -> StartedEngine:
        """An engine of other settings, and of another ``model`` than the scale's, in place of whatever was
        held. The caller drops it."""
        self.release()
        settings = self.settings(**changes)
        if has_tokenizer:
            write_tokenizer(Path(self._folder.name), self.config)
        if model is not None:
            directory = Path(tempfile.mkdtemp(dir=self._folder.name))
            Path(directory, "config.json").write_text(json.dumps(model))
            settings = settings.model_copy(update={"model": str(directory)})
        before = time.monotonic()
        started = start(settings)
        self.say(f"engine started in {time.monotonic() - before:.1f} s, {started.budget.pages} KV pages")
        return started

    def model(self) -> Transformer:
        """Weights alone, for what needs no engine."""
        if self._model is None:
            self.release()
            settings = self.settings()
            device = pick_device(settings.device)
            self._model = dummy_model(self.config, device, pick_dtype(settings.dtype, device))
        return self._model

    def weights(self) -> Transformer:
        """Of whatever is held, the bare model else."""
        return self._started.engine.runner.model if self._started else self.model()

    def release(self) -> None:
        """Drop what is held, and give the device its memory back."""
        self._started = self._model = None
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(1.0)

    def synchronize(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize()

    def close(self) -> None:
        self.release()
        self._folder.cleanup()
