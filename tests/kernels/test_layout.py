from __future__ import annotations

import numpy as np
import torch
from dllm_kernels.layout import length_groups, padded_rows
from hypothesis import given
from hypothesis import strategies as st

CPU = torch.device("cpu")
lengths_of = st.lists(st.integers(1, 40), min_size=1, max_size=8)


@given(lengths_of, st.integers(0, 5), st.data())
def test_scatter_undoes_gather_for_any_lengths(lengths: list[int], gap: int, data: st.DataObject) -> None:
    sizes = np.array(lengths)
    starts = np.cumsum(sizes + gap) - sizes
    total = int(starts[-1] + sizes[-1]) + gap
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes))))
    chosen[data.draw(st.integers(0, len(sizes) - 1))] = True
    flat = torch.arange(2 * total).view(total, 2)
    group = padded_rows(starts[chosen], sizes[chosen], CPU)

    dense = group.gather(flat)
    back = torch.full_like(flat, -1)
    group.scatter(dense, back)

    inside = torch.zeros(total, dtype=torch.bool)
    for index, (start, length) in enumerate(zip(starts[chosen], sizes[chosen], strict=True)):
        assert torch.equal(dense[index, :length], flat[start : start + length])
        inside[start : start + length] = True
    assert torch.equal(back[inside], flat[inside])
    assert (back[~inside] == -1).all()


@given(lengths_of)
def test_validity_is_named_only_where_something_is_padded(lengths: list[int]) -> None:
    sizes = np.array(lengths)
    group = padded_rows(np.cumsum(sizes) - sizes, sizes, CPU)

    if len(set(lengths)) == 1:
        assert group.is_valid is None
    else:
        assert group.is_valid is not None
        assert group.is_valid.sum(1).tolist() == lengths


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=30))
def test_lengths_of_one_group_are_within_a_factor_of_one_and_a_half(lengths: list[int]) -> None:
    sizes = np.array(lengths)
    groups = length_groups(sizes)

    for group in np.unique(groups):
        members = sizes[groups == group]
        assert members.max() < 1.5 * members.min() + 1e-9
