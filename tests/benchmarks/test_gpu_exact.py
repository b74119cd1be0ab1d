"""What a step of a block-causal model takes at the least, against the same by hand."""

from __future__ import annotations

import pytest
from dllm_server.models.registry import find_family

from benchmarks.gpu.exact import step_floor
from benchmarks.gpu.experts import Limits
from benchmarks.gpu.models import LLADA2_MINI, SDAR_8B

LIMITS = Limits(bytes_per_second=3e12, operations_per_second=7e14)


@pytest.mark.parametrize(
    ("model", "rows", "milliseconds"),
    [
        (SDAR_8B, 6, 2 * 7.57e9 / 3e12 * 1e3),  # every weight but the embedding is read once
        (SDAR_8B, 768, 2 * (6.95e9 * 768 + 0.62e9 * 384) / 7e14 * 1e3),  # arithmetic
        (LLADA2_MINI, 36, 2 * (19 * 175 * 3.15e6 + 0.58e9) / 3e12 * 1e3),  # some 175 of 257 experts
    ],
)
def test_a_step_costs_its_reads_or_its_arithmetic(
    model: dict[str, object], rows: int, milliseconds: float
) -> None:
    floor = step_floor(find_family(model)[1], rows, rows / 2, LIMITS)

    assert floor * 1e3 == pytest.approx(milliseconds, rel=0.05)
