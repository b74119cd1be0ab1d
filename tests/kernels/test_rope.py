from __future__ import annotations

import pytest
import torch
from dllm_kernels.rope import apply_rope, rope_tables

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_turns_each_pair_of_dimensions_as_a_complex_number(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    positions, dim, theta = torch.tensor([0, 1, 5, 63]), 8, 500000.0
    x = torch.randn(4, 3, dim).to(dtype)
    cos, sin = rope_tables(64, dim, theta, CPU)
    turn = theta ** (-torch.arange(dim // 2, dtype=torch.float64) * 2 / dim)
    angle = torch.outer(positions.double(), turn)
    wide = x.double()
    spun = torch.complex(wide[..., : dim // 2], wide[..., dim // 2 :]) * torch.exp(1j * angle)[:, None]

    result = apply_rope(x, cos[positions], sin[positions])

    assert result.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    expected = torch.cat((spun.real, spun.imag), -1)
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)


def test_scores_depend_on_the_distance_alone() -> None:
    torch.manual_seed(1)
    q, k = torch.randn(1, 1, 16), torch.randn(1, 1, 16)
    cos, sin = rope_tables(100, 16, 10000.0, CPU)

    def score(left: int, right: int) -> torch.Tensor:
        turned_q = apply_rope(q, cos[[left]], sin[[left]])
        return (turned_q * apply_rope(k, cos[[right]], sin[[right]])).sum()

    torch.testing.assert_close(score(3, 10), score(83, 90), rtol=1e-4, atol=1e-4)
