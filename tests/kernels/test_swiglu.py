from __future__ import annotations

import torch
from dllm_kernels.swiglu import silu_and_multiply


def test_the_first_half_gates_the_second() -> None:
    torch.manual_seed(0)
    gate, up = torch.randn(5, 12), torch.randn(5, 12)
    expected = gate.double() / (1 + torch.exp(-gate.double())) * up.double()

    result = silu_and_multiply(torch.cat((gate, up), dim=1))

    torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=1e-6)
