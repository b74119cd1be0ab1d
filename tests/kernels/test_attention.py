from __future__ import annotations

import math

import numpy as np
import torch
from dllm_kernels.attention import PagedKeys, paged_attention, varlen_attention
from dllm_kernels.layout import padded_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

CPU = torch.device("cpu")
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


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), head_counts, st.booleans(), st.integers(0, 99))
def test_varlen_attention_equals_each_request_alone(
    lengths: list[int], heads: tuple[int, int], is_one_group: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = np.array(lengths)
    starts, total = np.cumsum(sizes) - sizes, int(sizes.sum())
    q = torch.randn(total, heads[0], DIM, generator=generator)
    k, v = (torch.randn(total, heads[1], DIM, generator=generator) for _ in range(2))
    parts = [slice(None)] if is_one_group else [slice(i, i + 1) for i in range(len(sizes))]
    groups = [padded_rows(starts[part], sizes[part], CPU) for part in parts]
    out = torch.full_like(q, torch.nan)

    varlen_attention(q, k, v, groups, out)

    for start, length in zip(starts, sizes, strict=True):
        rows = slice(start, start + length)
        expected = dense_float64(q[rows], k[rows], v[rows])
        torch.testing.assert_close(out[rows].double(), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 30)), min_size=1, max_size=5),
    head_counts,
    st.integers(0, 99),
)
def test_paged_attention_equals_each_request_over_its_own_slots(
    shapes: list[tuple[int, int]], heads: tuple[int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes, counts = (np.array(column) for column in zip(*shapes, strict=True))
    starts, total = np.cumsum(sizes) - sizes, int(sizes.sum())
    q = torch.randn(total, heads[0], DIM, generator=generator)
    k_pool, v_pool = (torch.randn(200, heads[1], DIM, generator=generator) for _ in range(2))
    k_pool[0] = v_pool[0] = 1e4  # the trash page must not count
    slots = torch.randperm(199, generator=generator)[: counts.sum()] + 1
    owned = torch.split(slots, counts.tolist())
    padded = torch.zeros(len(sizes), int(counts.max()), dtype=torch.int64)
    for index, mine in enumerate(owned):
        padded[index, : len(mine)] = mine
    is_valid = None if len(set(counts.tolist())) == 1 else padded > 0
    out = torch.full_like(q, torch.nan)

    paged_attention(q, k_pool, v_pool, [(padded_rows(starts, sizes, CPU), PagedKeys(padded, is_valid))], out)

    for start, length, mine in zip(starts, sizes, owned, strict=True):
        rows = slice(start, start + length)
        expected = dense_float64(q[rows], k_pool[mine], v_pool[mine])
        torch.testing.assert_close(out[rows].double(), expected, rtol=1e-5, atol=1e-5)
