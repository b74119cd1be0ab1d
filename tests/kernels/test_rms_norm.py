from __future__ import annotations

import pytest
import torch
from dllm_kernels.rms_norm import rms_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_equals_the_formula_in_float64(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight = (torch.randn(7, 24) * 5).to(dtype), torch.randn(24).to(dtype)
    wide = x.double()
    expected = wide / torch.sqrt((wide * wide).mean(-1, keepdim=True) + 1e-5) * weight.double()

    result = rms_norm(x, weight, 1e-5)

    assert result.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)


def test_a_row_of_zeros_stays_zero() -> None:
    assert rms_norm(torch.zeros(1, 8), torch.ones(8), 1e-5).tolist() == [[0.0] * 8]
