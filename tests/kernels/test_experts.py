"""The routed feed-forward layer against its formula in float64, token by token."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from dllm_kernels.backend import Backend
from dllm_kernels.cuda_graph import record
from torch import Tensor

from tests.kernels.implementations import HAS_GPU, Implementation, each_experts, each_width, needs_triton

D_MODEL, WIDTH, EXPERTS, TAKEN = 40, 24, 5, 2  # neither width is a whole number of tiles


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


EVEN, SKEWED, THE_SAME = (), (20.0, 1.0, 0.0, 5.0, 0.1), (0.0, 1.0, 0.0, 0.0, 1.0)


@each_experts
@each_width
@pytest.mark.parametrize(
    ("tokens", "popularity"),
    [(1, EVEN), (19, SKEWED), (19, THE_SAME)],
    ids=["one", "skewed", "the-same"],
)
def test_each_tokens_experts_are_added_at_their_weights(
    implementation: Implementation, width: str, tokens: int, popularity: tuple[float, ...]
) -> None:
    layer = make_layer(implementation, width, tokens, popularity)

    result = run(implementation, layer)

    assert result.dtype == layer.x.dtype
    assert_near(result, expected_of(layer))


@each_experts
def test_no_tokens_are_left_alone(implementation: Implementation) -> None:
    assert run(implementation, make_layer(implementation, "float32", 0)).shape == (0, D_MODEL)


@each_experts
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


@each_experts
@each_width
def test_a_tokens_result_does_not_depend_on_the_others(implementation: Implementation, width: str) -> None:
    """Bit by bit where our kernels run; a library's product of few rows may add in another order."""
    layer = make_layer(implementation, width, 19, SKEWED)
    together = run(implementation, layer)

    for first, last in ((0, 1), (4, 7)):
        part = slice(first, last)
        some = replace(
            layer,
            x=layer.x[part],
            experts=layer.experts[part],
            weights=layer.weights[part],
            residual=layer.residual[part],
        )
        alone = run(implementation, some)
        if implementation.backend is Backend.TRITON:
            assert torch.equal(alone, together[part])
        else:
            torch.testing.assert_close(alone, together[part], rtol=1e-2, atol=1e-5)


@each_experts
@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA device")
def test_a_graph_replays_other_routings(implementation: Implementation) -> None:
    if implementation.backend is Backend.TORCH:
        pytest.skip("the plain implementation reads counts on the host")
    first, second = (make_layer(implementation, "narrow", 21, routing) for routing in (EVEN, SKEWED))
    graph, residual = record(lambda: run(implementation, first), implementation.device, warm_up_runs=1)
    expected = run(implementation, second)
    for name in ("x", "experts", "weights", "residual", "gate_up", "down"):
        getattr(first, name).copy_(getattr(second, name))

    graph.replay()

    assert torch.equal(residual, expected)


@needs_triton
def test_tiles_hold_about_the_rows_that_an_expert_gets() -> None:
    from dllm_kernels.gpu.experts import blocks_to_try

    expected = {
        1: [16],
        32: [16],
        128: [16],
        512: [16, 32, 64],
        2048: [64, 32, 128],
        4096: [128, 64],
        65536: [128],
    }

    assert {tokens: blocks_to_try(torch.empty(tokens, 9), 257) for tokens in expected} == expected
