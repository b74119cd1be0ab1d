"""The paged pool of K/V: the tensors behind the pages."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from dllm_server.engine.requests.pages import PageStore
from dllm_server.models.transformer import Transformer


class KvPool:
    """K and V of every layer, ``[layers, (pages + 1) * page_size, kv_heads, head_dim]`` each; keys are
    post-RoPE.

    Where K/V are packed, slot j of a request may hold a different token for each KV head.
    """

    def __init__(
        self,
        *,
        layers: int,
        pages: int,
        page_size: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        chunk_tokens: int = 0,
    ) -> None:
        self.store = PageStore(pages, chunk_pages=chunk_tokens // page_size, chunk_tokens=chunk_tokens)
        self.page_size = page_size
        shape = (layers, (pages + 1) * page_size, kv_heads, head_dim)
        self.k: Tensor = torch.zeros(shape, dtype=dtype, device=device)
        self.v: Tensor = torch.zeros(shape, dtype=dtype, device=device)

    @classmethod
    def for_model(cls, model: Transformer, pages: int, page_size: int) -> Self:
        """A pool of the model's shape on its device. Where its K/V are exact, prefixes are shared by chunks
        that are both whole blocks and whole pages."""
        exact = model.config.block_causal
        return cls(
            layers=model.config.n_layers,
            pages=pages,
            page_size=page_size,
            kv_heads=model.config.n_kv_heads,
            head_dim=model.config.head_dim,
            dtype=model.dtype,
            device=model.device,
            chunk_tokens=math.lcm(exact.block_length, page_size) if exact is not None else 0,
        )

    @property
    def size_bytes(self) -> int:
        return 2 * self.k.numel() * self.k.element_size()
