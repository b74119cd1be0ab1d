from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.implementations import Implementation, each_implementation, each_width


def norm_float64(x: Tensor, weight: Tensor) -> Tensor:
    wide = x.double()
    return wide / torch.sqrt((wide * wide).mean(-1, keepdim=True) + 1e-5) * weight.double()


@each_implementation
@each_width
def test_it_equals_the_formula_in_float64(implementation: Implementation, width: str) -> None:
    dtype = implementation.dtype(width)
    torch.manual_seed(0)
    x, weight = (torch.randn(7, 24) * 5).to(dtype), torch.randn(24).to(dtype)

    result = implementation.run.rms_norm(x.to(implementation.device), weight.to(implementation.device), 1e-5)

    assert result.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    expected = norm_float64(x, weight)
    torch.testing.assert_close(result.cpu().double(), expected, rtol=tolerance, atol=tolerance)


@each_implementation
def test_a_row_of_zeros_stays_zero(implementation: Implementation) -> None:
    zeros, ones = torch.zeros(1, 8), torch.ones(8)

    result = implementation.run.rms_norm(
        zeros.to(implementation.device), ones.to(implementation.device), 1e-5
    )

    assert result.tolist() == [[0.0] * 8]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the interpreter
@each_implementation
def test_a_mean_square_that_overflows_is_no_row_of_zeros(implementation: Implementation) -> None:
    x = torch.ones(3, 8)
    x[1] = 1e30

    result = implementation.run.rms_norm(
        x.to(implementation.device), torch.ones(8).to(implementation.device), 1e-5
    ).cpu()

    assert result[1].isnan().all()
    assert result[[0, 2]].isfinite().all()
