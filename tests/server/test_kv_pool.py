from __future__ import annotations

import pytest
import torch
from dllm_server.engine.device.kv_pool import KvPool, PageAllocator
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 40), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 15)), max_size=60))
def test_pages_are_conserved_and_belong_to_one_request(pages: int, actions: list[tuple[int, int]]) -> None:
    allocator, owned = PageAllocator(pages), dict[int, list[int]]()
    for slot, count in actions:
        if slot in owned:
            allocator.release(slot)
            del owned[slot]
        elif count <= allocator.free_pages:
            owned[slot] = allocator.reserve(slot, count)

        held = [page for mine in owned.values() for page in mine]
        assert len(set(held)) == len(held) == allocator.used_pages
        assert all(1 <= page <= pages for page in held)
        assert allocator.free_pages + allocator.used_pages == pages
    for slot in owned:
        allocator.release(slot)
    assert allocator.free_pages == pages


def test_reserving_more_than_is_free_takes_nothing() -> None:
    allocator = PageAllocator(3)

    with pytest.raises(ValueError, match="4 pages asked for, 3 are free"):
        allocator.reserve(0, 4)

    assert allocator.free_pages == 3


def test_a_slot_cannot_reserve_twice() -> None:
    allocator = PageAllocator(3)
    allocator.reserve(0, 1)

    with pytest.raises(ValueError, match="already owns"):
        allocator.reserve(0, 1)


def test_releasing_twice_raises() -> None:
    allocator = PageAllocator(3)
    allocator.reserve(0, 1)
    allocator.release(0)

    with pytest.raises(KeyError):
        allocator.release(0)


def test_the_pool_has_one_page_more_than_it_hands_out() -> None:
    pool = KvPool(
        layers=2,
        pages=5,
        page_size=4,
        kv_heads=2,
        head_dim=8,
        dtype=torch.bfloat16,
        device=torch.device("cpu"),
    )

    assert pool.k.shape == pool.v.shape == (2, 24, 2, 8)
    assert pool.size_bytes == 2 * 2 * 24 * 2 * 8 * 2
