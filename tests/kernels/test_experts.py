"""The routed feed-forward layer against its formula in float64, token by token."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.kernels.implementations import Implementation, each_implementation, each_width

D_MODEL, WIDTH, EXPERTS, TAKEN = 40, 24, 6, 3


@dataclass
class Layer:
    x: Tensor
    gate_up: Tensor
    down: Tensor
    experts: Tensor
    weights: Tensor
    residual: Tensor


def make_layer(
    implementation: Implementation, width: str, tokens: int, popularity: tuple[float, ...] = ()
) -> Layer:
    """``popularity`` of each expert; those of popularity 0 get no token."""
    torch.manual_seed(tokens)
    device = implementation.device

    def random(*shape: int) -> Tensor:
        return (torch.randn(shape) * 0.3).to(implementation.dtype(width)).to(device)

    chances = torch.tensor(popularity or (1.0,) * EXPERTS).expand(tokens, -1)
    experts = torch.multinomial(chances, TAKEN) if tokens else torch.empty(0, TAKEN)
    return Layer(
        x=random(tokens, D_MODEL),
        gate_up=random(EXPERTS, 2 * WIDTH, D_MODEL),
        down=random(EXPERTS, D_MODEL, WIDTH),
        experts=experts.to(torch.int32).to(device),
        weights=torch.rand(tokens, TAKEN, device=device),
        residual=random(tokens, D_MODEL),
    )


def run(implementation: Implementation, layer: Layer) -> Tensor:
    residual = layer.residual.clone()
    implementation.run.add_experts_mlp(
        layer.x, layer.gate_up, layer.down, layer.experts, layer.weights, residual
    )
    return residual


def expected_of(layer: Layer) -> Tensor:
    x, gate_up, down = layer.x.double(), layer.gate_up.double(), layer.down.double()
    result = layer.residual.double()
    for token, (experts, weights) in enumerate(
        zip(layer.experts.tolist(), layer.weights.tolist(), strict=True)
    ):
        for expert, weight in zip(experts, weights, strict=True):
            gate, up = (gate_up[expert] @ x[token]).chunk(2)
            result[token] += weight * (down[expert] @ (gate * gate.sigmoid() * up))
    return result


def assert_near(result: Tensor, expected: Tensor) -> None:
    error = float((result.double() - expected).norm() / expected.norm())
    assert error <= (1e-6 if result.dtype == torch.float32 else 1e-2)


ROUTINGS = {"even": (), "skewed": (20.0, 1.0, 0.0, 5.0, 0.0, 0.1), "the-same": (0.0, 1.0, 0.0, 1.0, 1.0, 0.0)}
each_routing = pytest.mark.parametrize("popularity", ROUTINGS.values(), ids=ROUTINGS.keys())


@each_implementation
@each_width
@each_routing
@pytest.mark.parametrize("tokens", [1, 7, 45])
def test_each_tokens_experts_are_added_at_their_weights(
    implementation: Implementation, width: str, popularity: tuple[float, ...], tokens: int
) -> None:
    layer = make_layer(implementation, width, tokens, popularity)

    result = run(implementation, layer)

    assert result.dtype == layer.x.dtype
    assert_near(result, expected_of(layer))


@each_implementation
def test_no_tokens_are_left_alone(implementation: Implementation) -> None:
    assert run(implementation, make_layer(implementation, "float32", 0)).shape == (0, D_MODEL)


@each_implementation
@each_width
def test_a_token_that_is_not_finite_leaves_the_others_alone(
    implementation: Implementation, width: str
) -> None:
    layer = make_layer(implementation, width, 9)
    sound = run(implementation, layer)
    layer.x[4] = torch.nan
    layer.weights[5, 1] = torch.nan

    result = run(implementation, layer)

    others = [0, 1, 2, 3, 6, 7, 8]
    assert torch.equal(result[others], sound[others])
    assert result[[4, 5]].isnan().all()
