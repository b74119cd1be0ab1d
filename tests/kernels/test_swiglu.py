from __future__ import annotations

import torch

from tests.kernels.implementations import Implementation, each_implementation, each_width


@each_implementation
@each_width
def test_the_first_half_gates_the_second(implementation: Implementation, width: str) -> None:
    dtype = implementation.dtype(width)
    torch.manual_seed(0)
    gate, up = (torch.randn(5, 37).to(dtype) for _ in range(2))
    expected = gate.double() / (1 + torch.exp(-gate.double())) * up.double()

    result = implementation.run.silu_and_multiply(torch.cat((gate, up), dim=1).to(implementation.device))

    assert result.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(result.cpu().double(), expected, rtol=tolerance, atol=tolerance)
