"""Every byte has an owner: what the engine holds now, and the most it held, told apart."""

from __future__ import annotations

from dllm_server.engine.device_memory import DeviceMemory
from dllm_server.memory import Budget


class MemoryLedger:
    """Splits the device's readings by owner.

    Weights and the KV pool are known exactly. ``other`` is what else was held when serving began. What a
    step holds above these is its transient: logits as the rows of the step say, activations the rest.
    """

    def __init__(self, memory: DeviceMemory, budget: Budget, *, weights_bytes: int, pool_bytes: int) -> None:
        self._memory, self._budget = memory, budget
        self._weights, self._pool = weights_bytes, pool_bytes
        self._other = max(memory.used_bytes() - weights_bytes - pool_bytes, 0)
        self._most_logits_rows = 0
        self._activations = self._logits = 0
        self._peaks = {"activations": 0, "logits": 0}
        memory.reset_peak()

    def note_step(self, logits_rows: int) -> None:
        """A step has run with at most ``logits_rows`` rows of logits at once."""
        self._most_logits_rows = max(self._most_logits_rows, logits_rows)

    def close_window(self) -> None:
        """Read the peak since the last call and begin the next window."""
        static = self._weights + self._pool + self._other
        transient = max(self._memory.peak_bytes() - static, 0)
        self._memory.reset_peak()
        self._logits = min(transient, self._most_logits_rows * self._budget.logits_bytes_per_row)
        self._activations = transient - self._logits
        self._most_logits_rows = 0
        for owner, value in (("activations", self._activations), ("logits", self._logits)):
            self._peaks[owner] = max(self._peaks[owner], value)

    def owners(self) -> dict[str, int]:
        return self._by_owner(self._activations, self._logits)

    def peak_owners(self) -> dict[str, int]:
        return self._by_owner(self._peaks["activations"], self._peaks["logits"])

    def _by_owner(self, activations: int, logits: int) -> dict[str, int]:
        held = {
            "weights": self._weights,
            "kv_pool": self._pool,
            "activations": activations,
            "logits": logits,
            "other": self._other,
        }
        return held | {"free": max(self._memory.total_bytes - sum(held.values()), 0)}
