"""Every byte has an owner: what the engine holds now, and the most it held, told apart."""

from __future__ import annotations

from dllm_server.engine.accounts.device_memory import DeviceMemory
from dllm_server.memory import Budget


class MemoryLedger:
    """Splits the device's readings by owner.

    Weights and the KV pool are known exactly. ``other`` is what else is held between steps, with what CUDA
    graphs reserve: on a device that gives freed memory back at once it is read again after each step, so that
    a leak shows here; elsewhere it is what was held when serving began. What a step holds above these is its
    transient: activations as far as its tokens explain it, logits the rest. A forward's activations are gone
    when its logits come, so that a step whose forward held most has none.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        budget: Budget,
        *,
        weights_bytes: int,
        pool_bytes: int,
        graphs_bytes: int = 0,
    ) -> None:
        self._memory, self._budget, self._graphs = memory, budget, graphs_bytes
        self._weights, self._pool = weights_bytes, pool_bytes
        self._other = self._read_other()
        self._recent = self._most = self._by_owner(0, 0)
        memory.reset_peak()

    def read_step(self, tokens: int) -> dict[str, int]:
        """Peak bytes by owner of the step of ``tokens`` query tokens that has just ended."""
        peak = self._memory.peak_bytes()
        if self._memory.gives_back_at_once:
            self._other = self._read_other()
        transient = max(peak + self._graphs - self._weights - self._pool - self._other, 0)
        activations = min(transient, tokens * self._budget.activation_bytes_per_token)
        owners = self._by_owner(activations, transient - activations)
        self._recent = owners
        self._most = {
            owner: min(owners[owner], value) if owner == "free" else max(owners[owner], value)
            for owner, value in self._most.items()
        }
        self._memory.reset_peak()
        return owners

    def discard_peak(self) -> None:
        """Forget what a step that failed has held."""
        self._memory.reset_peak()

    def owners(self) -> dict[str, int]:
        """Bytes by owner in the last step."""
        return self._recent

    def held(self) -> dict[str, int]:
        """Bytes by owner between steps."""
        return self._by_owner(0, 0)

    def peak_owners(self) -> dict[str, int]:
        """Most bytes of each owner since serving began; for ``free``, the least."""
        return self._most

    def settle(self) -> None:
        """Nothing runs: no step holds anything."""
        self._recent = self.held()

    def _read_other(self) -> int:
        return max(self._memory.used_bytes() - self._weights - self._pool, 0) + self._graphs

    def _by_owner(self, activations: int, logits: int) -> dict[str, int]:
        held = {
            "weights": self._weights,
            "kv_pool": self._pool,
            "activations": activations,
            "logits": logits,
            "other": self._other,
        }
        return held | {"free": max(self._memory.total_bytes - sum(held.values()), 0)}
