from __future__ import annotations

import torch
from dllm_server.engine.device.kv_pool import KvPool


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
