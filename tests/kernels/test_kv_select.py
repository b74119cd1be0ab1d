from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from dllm_kernels.kv_select import PackGroup
from dllm_kernels.layout import padded_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.implementations import CPU, Implementation, each_implementation

DIM, TRASH = 4, 8


@dataclass(frozen=True)
class Member:
    """A request of ``length`` tokens whose window is ``[start, end)`` and that keeps ``kept`` others."""

    length: int
    start: int
    end: int
    kept: int


@st.composite
def members(draw: st.DrawFn) -> Member:
    window = draw(st.sampled_from([1, 2, 4, 8]))  # powers of two: the mean query is exact
    length = draw(st.integers(window + 1, 24))
    start = draw(st.integers(0, length - window))
    end = start + window
    return Member(length, start, end, draw(st.integers(1, length - (end - start))))


def slow_selection(q: Tensor, k: Tensor, member: Member, *, is_shared: bool) -> list[list[int]]:
    """Kept positions of each KV head, best first; q and k are one request's rows."""
    context = [p for p in range(member.length) if not member.start <= p < member.end]
    kv_heads, group = k.shape[1], q.shape[1] // k.shape[1]
    pooled_of_head = []
    for kv in range(kv_heads):
        raw = {}
        for position in context:
            scores = []
            for head in range(kv * group, (kv + 1) * group):
                mean = q[member.start : member.end, head].double().mean(0)
                scores.append(float(mean @ k[position, kv].double()))
            raw[position] = max(scores)
        pooled_of_head.append({p: max(raw[n] for n in (p - 1, p, p + 1) if n in raw) for p in context})
    if is_shared:
        mean = {p: sum(pooled[p] for pooled in pooled_of_head) / kv_heads for p in context}
        pooled_of_head = [mean] * kv_heads
    return [sorted(context, key=lambda p: (-pooled[p], p))[: member.kept] for pooled in pooled_of_head]


@each_implementation
@settings(max_examples=8, deadline=None)
@given(
    st.lists(members(), min_size=1, max_size=4),
    st.sampled_from([(4, 4), (4, 2), (4, 1)]),
    st.booleans(),
    st.integers(0, 99),
)
def test_each_head_packs_the_keys_a_slow_loop_keeps(
    implementation: Implementation, group: list[Member], heads: tuple[int, int], is_shared: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = np.array([member.length for member in group])
    starts, total = np.cumsum(sizes) - sizes, int(sizes.sum())
    # Small whole numbers: scores are exact, so that ties are ties in float32 too.
    q = torch.randint(-8, 9, (total, heads[0], DIM), generator=generator).float()
    k = torch.randint(-8, 9, (total, heads[1], DIM), generator=generator).float()
    v = torch.arange(total * heads[1] * DIM).view(total, heads[1], DIM).float()
    batch, slots = make_group(group, starts, sizes, device=implementation.device)
    pools = [torch.full((TRASH + 200, heads[1], DIM), -1.0, device=implementation.device) for _ in range(2)]

    implementation.run.select_and_pack(
        *(tensor.to(implementation.device) for tensor in (q, k, v)), [batch], *pools, shares_indices=is_shared
    )

    k_pool, v_pool = (pool.cpu() for pool in pools)
    written = torch.zeros(len(k_pool), dtype=torch.bool)
    for start, member, mine in zip(starts, group, slots, strict=True):
        rows = slice(start, start + member.length)
        selection = slow_selection(q[rows], k[rows], member, is_shared=is_shared)
        for kv, positions in enumerate(selection):
            order = v_pool[mine, kv, 0].argsort()  # values name their positions
            assert torch.equal(v_pool[mine, kv][order], v[rows][sorted(positions), kv])
            assert torch.equal(k_pool[mine, kv][order], k[rows][sorted(positions), kv])
        written[mine] = True
    assert (k_pool[TRASH:][~written[TRASH:]] == -1).all(), "only own slots and the trash page are written"


def make_group(
    group: list[Member],
    starts: np.ndarray,
    sizes: np.ndarray,
    *,
    keeps_all: bool = False,
    device: torch.device = CPU,
) -> tuple[PackGroup, list[Tensor]]:
    longest, most = int(sizes.max()), max(member.kept for member in group)
    is_context = torch.zeros(len(group), longest, dtype=torch.bool)
    weight = torch.zeros(len(group), longest)
    padded = torch.zeros(len(group), most, dtype=torch.int64)
    slots, free = [], TRASH
    for index, member in enumerate(group):
        is_context[index, : member.length] = True
        is_context[index, member.start : member.end] = False
        weight[index, member.start : member.end] = 1 / (member.end - member.start)
        slots.append(torch.arange(free, free + member.kept))
        padded[index, : member.kept] = slots[-1]
        free += member.kept
    rows = padded_rows(starts, sizes, device)
    return PackGroup(rows, is_context.to(device), weight.to(device), padded.to(device), keeps_all), slots


@each_implementation
def test_keeping_all_packs_the_context_in_order_without_scores(implementation: Implementation) -> None:
    device = implementation.device
    group = [Member(9, 3, 5, 7), Member(8, 6, 8, 6)]
    sizes, starts = np.array([9, 8]), np.array([0, 9])
    v = torch.arange(17.0, device=device)[:, None, None].expand(-1, 2, DIM).contiguous()
    batch, slots = make_group(group, starts, sizes, keeps_all=True, device=device)
    k_pool, v_pool = torch.zeros(2, 60, 2, DIM, device=device)
    q = torch.full((17, 4, DIM), torch.nan, device=device)

    implementation.run.select_and_pack(q, v, v, [batch], k_pool, v_pool)

    assert v_pool[slots[0], 0, 0].tolist() == [0, 1, 2, 5, 6, 7, 8]
    assert v_pool[slots[1], 1, 0].tolist() == [9, 10, 11, 12, 13, 14]


@each_implementation
def test_the_score_uses_the_mean_query_of_the_whole_window(implementation: Implementation) -> None:
    device = implementation.device
    q = torch.zeros(6, 1, DIM, device=device)
    q[4, 0, 0], q[5, 0, 0] = 3.0, -1.0  # mean 1 along the first dimension
    k = torch.zeros(6, 1, DIM, device=device)
    k[0, 0, 0], k[3, 0, 0] = 1.0, -1.0
    batch, slots = make_group([Member(6, 4, 6, 2)], np.array([0]), np.array([6]), device=device)
    k_pool, v_pool = torch.zeros(2, 30, 1, DIM, device=device)
    v = torch.arange(6.0, device=device)[:, None, None].repeat(1, 1, DIM)

    implementation.run.select_and_pack(q, k, v, [batch], k_pool, v_pool)

    assert v_pool[slots[0], 0, 0].tolist() == [0, 1]  # position 1 through the pool over 3
