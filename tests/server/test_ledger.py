"""Whose bytes a step's peak counts as, on a device that is a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from dllm_server.engine.accounts.ledger import MemoryLedger
from dllm_server.memory import GIB, MIB, Budget, EngineLimits, ModelShape, plan_budget

SHAPE = ModelShape("small", 256, 4, 4, 4, 64, 512, 4096, 2048, False, False, 2)
LIMITS = EngineLimits(2048, 4096, 8, 256, 32, 1.0, 16)
PER_TOKEN = 8192
HELD = 300 * MIB  # beside weights and pool


@dataclass
class Device:
    """Holds the same between steps; ``peak`` is set by the test."""

    budget: Budget
    peak: int = 0
    total_bytes: int = 4 * GIB
    gives_back_at_once: bool = True

    def used_bytes(self) -> int:
        return self.budget.weights_bytes + self.budget.kv_pool_bytes + HELD

    def peak_bytes(self) -> int:
        return self.peak

    def reset_peak(self) -> None:
        self.peak = self.used_bytes()


@pytest.mark.parametrize(
    ("tokens", "transient", "logits"),
    [(1000, 1000 * PER_TOKEN, 0), (1000, 600 * PER_TOKEN, 0), (100, 50 * MIB, 50 * MIB - 100 * PER_TOKEN)],
    ids=["a whole forward", "less than its tokens could", "a head that held more than its forward"],
)
def test_a_transient_is_activations_as_far_as_the_tokens_explain_it(
    tokens: int, transient: int, logits: int
) -> None:
    budget = plan_budget(SHAPE, 4 * GIB, 0.9, LIMITS, activations_bytes=4096 * PER_TOKEN)
    device = Device(budget)
    ledger = MemoryLedger(device, budget, weights_bytes=budget.weights_bytes, pool_bytes=budget.kv_pool_bytes)
    device.peak = device.used_bytes() + transient

    owners = ledger.read_step(tokens)

    assert (owners["activations"], owners["logits"]) == (transient - logits, logits)
    assert (owners["other"], owners["kv_pool"]) == (HELD, budget.kv_pool_bytes)
    assert sum(owners.values()) == device.total_bytes
    assert ledger.held()["activations"] == 0
