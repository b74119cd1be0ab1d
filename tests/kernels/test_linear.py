"""Linear layers with their gate or residual sum against the formulas in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.kernels.implementations import Implementation, each_linear, each_width

ROWS, WIDTH, COLUMNS = (1, 21, 70), 40, 37  # rows on both sides of what one program holds


def inputs(implementation: Implementation, width: str, *shapes: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    dtype = implementation.dtype(width)
    return [(torch.randn(shape) * 0.5).to(dtype).to(implementation.device) for shape in shapes]


def assert_near(result: Tensor, expected: Tensor) -> None:
    """Rounding of inputs to 16 bits moves a small sum by more than its size."""
    assert result.shape == expected.shape
    error = float((result.double() - expected).norm() / expected.norm())
    assert error <= (1e-6 if result.dtype == torch.float32 else 1e-2)


@each_linear
@each_width
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_linear_layer(implementation: Implementation, width: str, rows: int, has_bias: bool) -> None:
    x, weight, bias = inputs(implementation, width, (rows, WIDTH), (COLUMNS, WIDTH), (COLUMNS,))

    result = implementation.run.linear(x, weight, bias if has_bias else None)

    assert result.dtype == x.dtype
    assert_near(result, x.double() @ weight.double().T + (bias.double() if has_bias else 0))


@each_linear
@each_width
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("size", [(WIDTH, COLUMNS), (32, 48)])
def test_a_gated_layer(implementation: Implementation, width: str, rows: int, size: tuple[int, int]) -> None:
    """Also where tiles divide width and columns."""
    depth, columns = size
    x, gate_up = inputs(implementation, width, (rows, depth), (2 * columns, depth))

    result = implementation.run.gated_linear(x, gate_up)

    gate, up = (x.double() @ gate_up.double().T).chunk(2, dim=1)
    assert_near(result, gate * torch.sigmoid(gate) * up)


@each_linear
@each_width
@pytest.mark.parametrize("rows", ROWS)
def test_a_linear_layer_added_to_the_residual(implementation: Implementation, width: str, rows: int) -> None:
    x, weight, residual = inputs(implementation, width, (rows, WIDTH), (COLUMNS, WIDTH), (rows, COLUMNS))
    expected = residual.double() + x.double() @ weight.double().T

    implementation.run.add_linear(x, weight, residual)

    assert_near(residual, expected)
