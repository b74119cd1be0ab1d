"""The engine's loop: read messages, step, send messages, in the process that ``worker`` spawns."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import msgspec
import structlog
import zmq

from dllm_server.cause import Cause, Explanation
from dllm_server.engine.accounts.device_memory import is_out_of_memory
from dllm_server.engine.process.live_tuning import GrowthLimits, TuningWatch
from dllm_server.engine.process.meter import Meter
from dllm_server.engine.process.snapshot import take_snapshot
from dllm_server.engine.process.startup import DeviceError, StartedEngine, start
from dllm_server.engine.requests.decoding import diffusion_defaults
from dllm_server.engine.requests.messages import (
    Cancel,
    Diffusion,
    FromEngine,
    Generate,
    Ready,
    Sampling,
    Score,
    Shutdown,
    StartFailed,
    ToEngine,
)
from dllm_server.extras import MissingPackageError
from dllm_server.logs import configure_logging
from dllm_server.memory import BudgetError
from dllm_server.models.files import ModelError
from dllm_server.models.progress import loading_bar
from dllm_server.settings import EngineSettings, LogSettings
from dllm_server.termination import DEVICE_OUT_OF_MEMORY_EXIT_CODE, TerminationReason

log = structlog.get_logger(__name__)

SNAPSHOT_SECONDS = 0.1
PROBE_SECONDS = 1.0
PROBE_ID = "probe"  # the API's ids are longer
IDLE_POLL_MILLISECONDS = 50
EXIT_START_FAILED = 3


def serve_engine(
    endpoint: str, settings: EngineSettings, *, start: Callable[..., StartedEngine] = start
) -> int:
    """The child's main: start, answer until told to stop or the parent is gone. Returns the exit code."""
    parent = os.getppid()
    encoder = msgspec.msgpack.Encoder()
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
    socket.set_hwm(0)
    socket.connect(endpoint)
    try:
        with loading_bar() as progress:
            started = start(settings, progress=progress)
    except Exception as error:
        failure = start_failure(error)
        if failure is None:
            raise
        socket.send(encoder.encode([failure]))
        socket.close(linger=1000)
        return EXIT_START_FAILED
    started.engine.grammars.load()
    socket.send(encoder.encode([Ready(started.model)]))
    try:
        EngineLoop(socket, started, settings, parent).run()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        log.exception("the device ran out of memory")
        return DEVICE_OUT_OF_MEMORY_EXIT_CODE
    finally:
        socket.close(linger=1000)
    return 0


def start_failure(error: Exception) -> StartFailed | None:
    """What to say of an error while starting; None for a bug, whose traceback should be seen."""
    match error:
        case BudgetError():
            reason, why = TerminationReason.BUDGET_EXCEEDED, error.why
        case ModelError() | DeviceError():
            reason, why = TerminationReason.START_FAILED, error.why
        case MissingPackageError():
            reason, why = TerminationReason.START_FAILED, Explanation(Cause.PACKAGE)
        case _ if is_out_of_memory(error):
            reason, why = TerminationReason.DEVICE_OUT_OF_MEMORY, Explanation(Cause.DEVICE_MEMORY_AT_START)
        case _:
            return None
    return StartFailed(reason, " ".join(str(error).split()), why.cause, dict(why.numbers))


class EngineLoop:
    """Read messages, step, send messages, until a ``Shutdown`` or the parent's end."""

    def __init__(
        self, socket: zmq.Socket[bytes], started: StartedEngine, settings: EngineSettings, parent: int
    ) -> None:
        self._socket, self._started, self._engine, self._parent = socket, started, started.engine, parent
        self._settings = settings
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(list[ToEngine])
        self._limits = growth_limits(settings, started)
        self._tuning = TuningWatch(settings.tuning_file, self._limits) if settings.tuning_file else None
        self._meter = Meter(started.engine, started.ledger, window_seconds=settings.memory_window_seconds)
        self._snapshot_due = self._probe_due = 0.0

    def run(self) -> None:
        while os.getppid() == self._parent:
            outgoing: list[FromEngine] = []
            timeout = 0 if self._engine.has_work else IDLE_POLL_MILLISECONDS
            while self._socket.poll(timeout):
                timeout = 0
                for message in self._decoder.decode(self._socket.recv()):
                    match message:
                        case Generate() | Score():
                            outgoing += self._engine.submit(message)
                        case Cancel(request_id):
                            outgoing += self._engine.cancel(request_id)
                        case Shutdown():
                            return
            outgoing += self._engine.step()
            self._meter.read(self._tuning.generation if self._tuning else 0)
            outgoing += self._housekeeping()
            if outgoing:
                self._socket.send(self._encoder.encode(outgoing))

    def _housekeeping(self) -> list[FromEngine]:
        now = time.monotonic()
        if now < self._snapshot_due:
            return []
        self._snapshot_due = now + SNAPSHOT_SECONDS
        self._meter.settle()
        self._probe(now)
        if self._tuning is not None and (live := self._tuning.poll()) is not None:
            self._engine.retune(live)
        return [take_snapshot(self._started, self._meter.windows.closed, self._limits, self._tuning)]

    def _probe(self, now: float) -> None:
        """While the model is not sound, nobody may be sent here any more: a small request of our own finds
        out when it is again. Nobody hears of its end."""
        engine = self._engine
        if engine.soundness.is_sound or now < self._probe_due or engine.is_open(PROBE_ID):
            return
        self._probe_due = now + PROBE_SECONDS
        model = self._started.model
        diffusion = Diffusion.of(diffusion_defaults(self._settings, model.blocks))
        engine.submit(Generate(PROBE_ID, model.eos_token_ids[:1], 1, Sampling(), diffusion))


def growth_limits(settings: EngineSettings, started: StartedEngine) -> GrowthLimits:
    """Tokens and logits rows may grow into what the memory budget left free."""
    budget = started.budget
    return GrowthLimits(
        settings.live_settings(),
        max_seqs=started.engine.table.slots,
        spare_bytes=budget.free_bytes,
        token_bytes=budget.activation_bytes_per_token,
        row_bytes=budget.logits_bytes_per_row,
    )


def main() -> int:
    endpoint, settings, logs, _ = sys.argv[1:]
    configure_logging(LogSettings.model_validate_json(logs))
    code = serve_engine(endpoint, EngineSettings.model_validate_json(settings))
    zmq.Context.instance().term()  # once the last messages are sent
    return code
