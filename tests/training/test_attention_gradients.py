import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import sdpa_kernel

from training.attention import BACKENDS, attention

ON_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]


def make_inputs(device: str, rows: int, tokens: int) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    shape = (rows, 6, tokens, 64)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    inputs = [
        torch.randn(shape, device=device, dtype=dtype, generator=generator).requires_grad_() for _ in range(3)
    ]
    mask = torch.rand(rows, 1, 1, tokens, device=device, generator=generator) < 0.7
    mask[..., 0] = True
    return inputs, mask


def gradients(attended: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(attended.float().square().sum(), inputs))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_CUDA)])
def test_attention_and_its_gradients_are_pytorchs(device: str) -> None:
    inputs, mask = make_inputs(device, 3, 40)
    with sdpa_kernel(BACKENDS):
        expected = F.scaled_dot_product_attention(*inputs, attn_mask=mask)

    attended = attention(*inputs, mask)

    torch.testing.assert_close(attended, expected)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if device == "cuda" else {}  # bfloat16, summed in another order
    torch.testing.assert_close(gradients(attended, inputs), gradients(expected, inputs), **tolerance)


@pytest.mark.parametrize(
    ("device", "rows", "tokens"), [("cpu", 2, 64), pytest.param("cuda", 37, 1088, marks=ON_CUDA)]
)
def test_gradients_are_the_same_bits_every_time(device: str, rows: int, tokens: int) -> None:
    inputs, mask = make_inputs(device, rows, tokens)
    first = gradients(attention(*inputs, mask), inputs)

    for _ in range(3):
        again = gradients(attention(*inputs, mask), inputs)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_the_mode_is_left_as_it_was() -> None:
    inputs, mask = make_inputs("cpu", 1, 8)

    gradients(attention(*inputs, mask), inputs)

    assert not torch.are_deterministic_algorithms_enabled()
