from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dllm_kernels.attention import PagedKeys
from dllm_kernels.layout import padded_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.implementations import Implementation, each_implementation

DIM = 8
head_counts = st.sampled_from([(4, 4), (4, 2), (4, 1), (1, 1)])


def dense_float64(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One request, head by head: q [length, heads, dim] over k, v [keys, kv_heads, dim]."""
    group = q.shape[1] // k.shape[1]
    outputs = []
    for head in range(q.shape[1]):
        keys, values = k[:, head // group].double(), v[:, head // group].double()
        weights = (q[:, head].double() @ keys.T / math.sqrt(q.shape[2])).softmax(-1)
        outputs.append(weights @ values)
    return torch.stack(outputs, dim=1)


@pytest.mark.sampled(0.5)
@each_implementation
@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), head_counts, st.booleans(), st.integers(0, 99))
def test_varlen_attention_equals_each_request_alone(
    implementation: Implementation, lengths: list[int], heads: tuple[int, int], is_one_group: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = np.array(lengths)
    starts, total = np.cumsum(sizes) - sizes, int(sizes.sum())
    q = torch.randn(total, heads[0], DIM, generator=generator)
    k, v = (torch.randn(total, heads[1], DIM, generator=generator) for _ in range(2))
    parts = [slice(None)] if is_one_group else [slice(i, i + 1) for i in range(len(sizes))]
    device = implementation.device
    groups = [padded_rows(starts[part], sizes[part], device) for part in parts]
    out = torch.full_like(q, torch.nan, device=device)

    implementation.run.varlen_attention(q.to(device), k.to(device), v.to(device), groups, out)

    for start, length in zip(starts, sizes, strict=True):
        rows = slice(start, start + length)
        expected = dense_float64(q[rows], k[rows], v[rows])
        torch.testing.assert_close(out[rows].double().cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the interpreter
@each_implementation
def test_a_request_of_nan_leaves_the_others_of_its_group_alone(implementation: Implementation) -> None:
    sizes, device = np.array([4, 2, 3]), implementation.device
    starts, generator = np.cumsum(sizes) - sizes, torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(9, 2, DIM, generator=generator) for _ in range(3))
    expected = [dense_float64(q[rows], k[rows], v[rows]) for rows in (slice(4, 6), slice(6, 9))]
    for tensor in (q, k, v):
        tensor[:4] = torch.nan
    out = torch.zeros_like(q, device=device)

    implementation.run.varlen_attention(
        q.to(device), k.to(device), v.to(device), [padded_rows(starts, sizes, device)], out
    )

    assert out[:4].isnan().all()
    torch.testing.assert_close(out[4:].double().cpu(), torch.cat(expected), rtol=1e-5, atol=1e-5)


@each_implementation
@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 30)), min_size=1, max_size=5),
    head_counts,
    st.integers(0, 99),
)
@pytest.mark.sampled(0.5)
def test_paged_attention_equals_each_request_over_its_own_slots(
    implementation: Implementation, shapes: list[tuple[int, int]], heads: tuple[int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes, counts = (np.array(column) for column in zip(*shapes, strict=True))
    starts, total = np.cumsum(sizes) - sizes, int(sizes.sum())
    q = torch.randn(total, heads[0], DIM, generator=generator)
    k_pool, v_pool = (torch.randn(200, heads[1], DIM, generator=generator) for _ in range(2))
    k_pool[0] = v_pool[0] = torch.nan  # the trash page must not count
    slots = torch.randperm(199, generator=generator)[: counts.sum()] + 1
    owned = torch.split(slots, counts.tolist())
    padded = torch.zeros(len(sizes), int(counts.max()), dtype=torch.int64)
    for index, mine in enumerate(owned):
        padded[index, : len(mine)] = mine
    is_padded = len(set(counts.tolist())) > 1
    device = implementation.device
    out = torch.full_like(q, torch.nan, device=device)
    keys = PagedKeys(padded.to(device), torch.from_numpy(counts).int().to(device), is_padded)

    implementation.run.paged_attention(
        q.to(device), k_pool.to(device), v_pool.to(device), [(padded_rows(starts, sizes, device), keys)], out
    )

    for start, length, mine in zip(starts, sizes, owned, strict=True):
        rows = slice(start, start + length)
        expected = dense_float64(q[rows], k_pool[mine], v_pool[mine])
        torch.testing.assert_close(out[rows].double().cpu(), expected, rtol=1e-5, atol=1e-5)


@each_implementation
@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from([1, 3, 4]),
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=4),
    head_counts,
    st.integers(0, 99),
)
@pytest.mark.sampled(0.5)
def test_blocks_see_what_comes_before_them_and_themselves(
    implementation: Implementation,
    block: int,
    shapes: list[tuple[int, int]],
    heads: tuple[int, int],
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = np.array([own for own, _ in shapes]) * block
    counts = np.array([own + before for own, before in shapes]) * block
    starts, total = np.cumsum(sizes) - sizes, int(sizes.sum())
    q = torch.randn(total, heads[0], DIM, generator=generator)
    k_pool, v_pool = (torch.randn(200, heads[1], DIM, generator=generator) for _ in range(2))
    k_pool[0] = v_pool[0] = torch.nan  # the trash page must not count
    slots = torch.randperm(199, generator=generator)[: counts.sum()] + 1
    owned = torch.split(slots, counts.tolist())
    padded = torch.zeros(len(sizes), int(counts.max()), dtype=torch.int64)
    for index, mine in enumerate(owned):
        padded[index, : len(mine)] = mine
    device, is_padded = implementation.device, len(set(counts.tolist())) > 1
    out = torch.full_like(q, torch.nan, device=device)
    keys = PagedKeys(padded.to(device), torch.from_numpy(counts).int().to(device), is_padded, block)

    implementation.run.paged_attention(
        q.to(device), k_pool.to(device), v_pool.to(device), [(padded_rows(starts, sizes, device), keys)], out
    )

    for start, length, mine in zip(starts, sizes, owned, strict=True):
        for first in range(0, length, block):
            rows = slice(start + first, start + first + block)
            seen = mine[: len(mine) - length + first + block]
            expected = dense_float64(q[rows], k_pool[seen], v_pool[seen])
            torch.testing.assert_close(out[rows].double().cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.sampled(0.5)
@each_implementation
@pytest.mark.parametrize("own", [4, 68])
def test_long_rows_of_keys_fall_into_parts_beside_short_ones(
    implementation: Implementation, own: int
) -> None:
    device, generator = implementation.device, torch.Generator().manual_seed(own)
    sizes, counts = np.array([own, 4, 4]), np.array([2100, 40, 12])
    starts, rows = np.cumsum(sizes) - sizes, int(sizes.sum())
    q = torch.randn(rows, 2, 16, generator=generator)
    k_pool, v_pool = (torch.randn(2200, 1, 16, generator=generator) for _ in range(2))
    padded = torch.randperm(2199, generator=generator)[: counts.sum()] + 1
    padded = torch.nn.utils.rnn.pad_sequence(padded.split(counts.tolist()), batch_first=True)
    keys = PagedKeys(padded.to(device), torch.from_numpy(counts).int().to(device), True, 4)
    out = torch.full_like(q, torch.nan, device=device)

    implementation.run.paged_attention(
        q.to(device), k_pool.to(device), v_pool.to(device), [(padded_rows(starts, sizes, device), keys)], out
    )

    for start, length, count, mine in zip(starts, sizes, counts, padded, strict=True):
        for first in range(0, length, 4):
            seen, part = mine[: count - length + first + 4], slice(start + first, start + first + 4)
            expected = dense_float64(q[part], k_pool[seen], v_pool[seen])
            torch.testing.assert_close(out[part].double().cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.sampled(0.5)
@each_implementation
@pytest.mark.parametrize("block", [0, 4, 32])
def test_spans_longer_than_a_block_see_as_much(implementation: Implementation, block: int) -> None:
    """Beside tiles of keys that all rows of a tile see, such that none or a part of them do."""
    dim = 24
    device, generator = implementation.device, torch.Generator().manual_seed(block)
    sizes, counts = np.array([64, 32]), np.array([96, 32])
    starts, rows = np.cumsum(sizes) - sizes, int(sizes.sum())
    q = torch.randn(rows, 4, dim, generator=generator)
    k_pool, v_pool = (torch.randn(400, 1, dim, generator=generator) for _ in range(2))
    k_pool[0] = v_pool[0] = torch.nan  # the trash page must not count
    padded = torch.randperm(399, generator=generator)[: counts.sum()] + 1
    padded = torch.nn.utils.rnn.pad_sequence(padded.split(counts.tolist()), batch_first=True)
    keys = PagedKeys(padded.to(device), torch.from_numpy(counts).int().to(device), True, block)
    out = torch.full_like(q, torch.nan, device=device)

    implementation.run.paged_attention(
        q.to(device), k_pool.to(device), v_pool.to(device), [(padded_rows(starts, sizes, device), keys)], out
    )

    for start, length, count, mine in zip(starts, sizes, counts, padded, strict=True):
        for first in range(0, length, block or length):
            last = first + (block or length)
            seen, part = mine[: count - length + last], slice(start + first, start + last)
            expected = dense_float64(q[part], k_pool[seen], v_pool[seen])
            torch.testing.assert_close(out[part].double().cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.sampled(0.5)
@each_implementation
@pytest.mark.parametrize("dim", [64, 96, 128])
def test_16_bit_attention_is_within_a_hundredth_of_float64(implementation: Implementation, dim: int) -> None:
    device, generator = implementation.device, torch.Generator().manual_seed(dim)
    sizes, kept = np.array([133, 5]), 140
    rows = int(sizes.sum())
    qkv = torch.randn(rows, 8 * dim, generator=generator).to(
        implementation.narrow
    )  # 4 query heads, 2 of K, 2 of V
    q, k, v = (
        part.view(rows, -1, dim) for part in torch.split(qkv.to(device), [4 * dim, 2 * dim, 2 * dim], 1)
    )
    pools = [torch.randn(160, 2, dim, generator=generator).to(implementation.narrow) for _ in range(2)]
    slots = torch.stack([torch.randperm(160, generator=generator)[:kept] for _ in sizes])
    spans = padded_rows(np.array([0, 133]), sizes, device)
    out = [
        torch.full((rows, 4, dim), torch.nan, dtype=implementation.narrow, device=device) for _ in range(2)
    ]

    implementation.run.varlen_attention(q, k, v, [spans], out[0])
    keys = PagedKeys(slots.to(device), torch.full((2,), kept, dtype=torch.int32, device=device), False)
    implementation.run.paged_attention(q, pools[0].to(device), pools[1].to(device), [(spans, keys)], out[1])

    for own, part in enumerate((slice(0, 133), slice(133, 138))):
        expected = dense_float64(q[part].cpu(), k[part].cpu(), v[part].cpu())
        assert_near(out[0][part], expected)
        expected = dense_float64(q[part].cpu(), pools[0][slots[own]], pools[1][slots[own]])
        assert_near(out[1][part], expected)


def assert_near(result: Tensor, expected: Tensor) -> None:
    assert float((result.double().cpu() - expected).norm() / expected.norm()) <= 1e-2
