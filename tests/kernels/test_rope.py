from __future__ import annotations

import pytest
import torch
from dllm_kernels.rope import HeadNorms, apply_rope, rope_tables, split_heads

from tests.kernels.implementations import Implementation, each_implementation, each_width

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


@each_implementation
@each_width
@pytest.mark.parametrize("written", [0, 2, 5])
def test_queries_and_keys_turn_in_place_and_the_last_rows_reach_their_slots(
    implementation: Implementation, width: str, written: int
) -> None:
    dtype = implementation.dtype(width)
    torch.manual_seed(2)
    device, heads, kv_heads, dim = implementation.device, 3, 2, 24
    qkv = torch.randn(5, (heads + 2 * kv_heads) * dim).to(dtype)
    cos, sin = (table[[3, 9, 0, 4, 60]] for table in rope_tables(64, dim, 10000.0, CPU))
    q, k, v = (part.clone() for part in split_heads(qkv, heads, kv_heads))
    slots = torch.tensor([7, 2, 0, 5, 9])[:written]
    pools = [torch.full((12, kv_heads, dim), -1.0, dtype=dtype, device=device) for _ in range(2)]

    views = implementation.run.rope_to_pages(
        *(tensor.to(device) for tensor in (qkv, cos, sin)), heads, kv_heads, *pools, slots.to(device)
    )

    expected = apply_rope(q.double(), cos, sin), apply_rope(k.double(), cos, sin), v.double()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    for view, wide in zip(views, expected, strict=True):
        torch.testing.assert_close(view.cpu().double(), wide, rtol=tolerance, atol=tolerance)
    for pool, fresh in zip(pools, views[1:], strict=True):
        assert torch.equal(pool[slots], fresh[5 - written :])
        rest = [slot for slot in range(12) if slot not in slots.tolist()]
        assert (pool[rest] == -1).all()


@each_implementation
@each_width
@pytest.mark.parametrize("has_norms", [True, False], ids=["normed", "plain"])
@pytest.mark.parametrize(("dim", "rotary_dim"), [(24, 24), (24, 8), (16, 8), (10, 6)])
def test_heads_are_normed_and_turn_in_part(
    implementation: Implementation, width: str, has_norms: bool, dim: int, rotary_dim: int
) -> None:
    dtype = implementation.dtype(width)
    torch.manual_seed(4)
    device, heads, kv_heads, tokens, written, eps = implementation.device, 3, 2, 5, 3, 1e-3
    qkv = 2 * torch.randn(tokens, (heads + 2 * kv_heads) * dim).to(dtype)
    positions = torch.tensor([3, 9, 0, 4, 60])
    weights = [(1 + torch.rand(dim)).to(dtype) for _ in range(2)]
    norms = HeadNorms(*(weight.to(device) for weight in weights), eps) if has_norms else None
    q, k, v = (part.clone().double() for part in split_heads(qkv, heads, kv_heads))
    if has_norms:
        q, k = (
            part / (part.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
            for part, weight in zip((q, k), weights, strict=True)
        )
    expected = [
        torch.cat((turned_by_hand(part[..., :rotary_dim], positions), part[..., rotary_dim:]), -1)
        for part in (q, k)
    ]
    cos, sin = (table[positions].to(device) for table in rope_tables(64, rotary_dim, 10000.0, CPU))
    slots = torch.tensor([7, 2, 9])
    pools = [torch.full((12, kv_heads, dim), -1.0, dtype=dtype, device=device) for _ in range(2)]

    views = implementation.run.rope_to_pages(
        qkv.to(device), cos, sin, heads, kv_heads, *pools, slots.to(device), norms
    )

    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    for view, wide in zip(views, (*expected, v), strict=True):
        torch.testing.assert_close(view.cpu().double(), wide, rtol=tolerance, atol=tolerance)
    for pool, fresh in zip(pools, views[1:], strict=True):
        assert torch.equal(pool[slots], fresh[tokens - written :])
        rest = [slot for slot in range(12) if slot not in slots.tolist()]
        assert (pool[rest] == -1).all()


@each_implementation
def test_a_head_whose_mean_square_overflows_is_not_a_number(implementation: Implementation) -> None:
    qkv = torch.ones(1, 4 * 16)
    qkv[0, 16:32] = 3e38  # the second query head
    norms = HeadNorms(*(torch.ones(16, device=implementation.device) for _ in range(2)), 1e-6)
    cos, sin = (table.to(implementation.device) for table in rope_tables(1, 16, 10000.0, CPU))
    pools = [torch.zeros(1, 1, 16, device=implementation.device) for _ in range(2)]
    slots = torch.zeros(0, dtype=torch.int64, device=implementation.device)

    q, k, _ = implementation.run.rope_to_pages(
        qkv.to(implementation.device), cos, sin, 2, 1, *pools, slots, norms
    )

    assert q[0, 1].isnan().all()
    assert q[0, 0].isfinite().all()
    assert k.isfinite().all()


def turned_by_hand(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Each pair of dimensions half a width apart as a complex number."""
    half = x.shape[-1] // 2
    turn = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    spin = torch.exp(1j * torch.outer(positions.double(), turn))[:, None]
    spun = torch.complex(x[..., :half], x[..., half:]) * spin
    return torch.cat((spun.real, spun.imag), -1)
