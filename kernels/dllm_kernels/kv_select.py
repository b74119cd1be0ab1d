"""Head-centric selection: which context keys each KV head keeps for the reuse steps of a block, packed into
pages.

dLLM-Serve, section on head-centric sparse attention: score by the block's mean query, max over the query
heads of a group, max-pool over a window of 3 positions, keep the best of each KV head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.layout import PaddedRows

POOL_WINDOW = 3


@dataclass(frozen=True, slots=True)
class PackGroup:
    """A group of refresh requests whose K/V are packed.

    Attributes:
        rows: the requests' rows of the flat batch.
        is_context: bool ``[requests, length]``, keys outside the block's window.
        query_weight: float32 ``[requests, length]``, 1 / window on the window's contiguous rows and 0
        elsewhere.
        slots: int64 ``[requests, kept]``, destination in the pool; padding comes last and is slot 0, of the
        trash page.
        keeps_all: every request keeps its whole context, so that nothing needs a score; it then lies in the
        order of its positions.
    """

    rows: PaddedRows
    is_context: Tensor
    query_weight: Tensor
    slots: Tensor
    keeps_all: bool


def select_and_pack(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    groups: Sequence[PackGroup],
    k_pool: Tensor,
    v_pool: Tensor,
    *,
    shares_indices: bool = False,
) -> None:
    """Write each request's kept context K/V to its slots; slot j may hold a different token for each KV head.

    Which tokens a head keeps is exact, ties going to the lower position; their order over the slots is free,
    as attention does not depend on it (here best first), but for those who keep all.

    Args:
        q: ``[rows, heads, head_dim]``. k, v: ``[rows, kv_heads, head_dim]``, all after RoPE.
        k_pool, v_pool: ``[slots, kv_heads, head_dim]``, written in place.
        shares_indices: one index set for all heads (the mean score), for evaluation only.
    """
    for group in groups:
        keys, values = group.rows.gather(k), group.rows.gather(v)  # [n, length, kv_heads, dim]
        if group.keeps_all:
            score = group.is_context[:, :, None].float()
        else:
            score = context_scores(group.rows.gather(q), keys, group.is_context, group.query_weight)
            if shares_indices:
                score = score.mean(dim=2, keepdim=True)
        kept = score.argsort(dim=1, descending=True, stable=True)[:, : group.slots.shape[1]]
        index = kept[..., None].expand(-1, -1, *keys.shape[2:])  # [n, kept, kv_heads, dim]
        k_pool[group.slots] = keys.gather(1, index)
        v_pool[group.slots] = values.gather(1, index)


def context_scores(q: Tensor, k: Tensor, is_context: Tensor, query_weight: Tensor) -> Tensor:
    """Pooled score of each key for each KV head, float32 ``[n, length, kv_heads]``; ``-inf`` outside the
    context."""
    count, _, heads, dim = q.shape
    kv_heads = k.shape[2]
    mean_query = torch.einsum("nlhd,nl->nhd", q.float(), query_weight).view(
        count, kv_heads, heads // kv_heads, dim
    )
    score = torch.einsum("nkgd,nlkd->nkgl", mean_query, k.float()).amax(dim=2)  # [n, kv_heads, length]
    score = score.masked_fill(~is_context[:, None], -torch.inf)
    score = F.max_pool1d(score, POOL_WINDOW, stride=1, padding=POOL_WINDOW // 2)
    return score.masked_fill(~is_context[:, None], -torch.inf).transpose(1, 2)
