"""The paged pool of head-packed K/V: which pages are free, and the tensors behind them."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from dllm_server.models.transformer import Transformer


class PageAllocator:
    """Hands out pages 1 ... ``pages``; page 0 takes padding writes and belongs to nobody."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._free = list(range(pages, 0, -1))
        self._owned: dict[int, list[int]] = {}

    @property
    def free_pages(self) -> int:
        return len(self._free)

    @property
    def used_pages(self) -> int:
        return self.pages - len(self._free)

    def reserve(self, slot: int, count: int) -> list[int]:
        """Pages for the life of the request in ``slot``; raises ``ValueError`` when they are not there or it
        has some."""
        if slot in self._owned:
            raise ValueError(f"slot {slot} already owns pages")
        if count > len(self._free):
            raise ValueError(f"{count} pages asked for, {len(self._free)} are free")
        pages = [self._free.pop() for _ in range(count)]
        self._owned[slot] = pages
        return pages

    def release(self, slot: int) -> None:
        """Give the pages of ``slot`` back; raises ``KeyError`` when it owns none."""
        self._free.extend(reversed(self._owned.pop(slot)))


class KvPool:
    """K and V of every layer, ``[layers, (pages + 1) * page_size, kv_heads, head_dim]`` each; keys are
    post-RoPE.

    Slot j of a request may hold a different token for each KV head.
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
    ) -> None:
        self.allocator = PageAllocator(pages)
        self.page_size = page_size
        shape = (layers, (pages + 1) * page_size, kv_heads, head_dim)
        self.k: Tensor = torch.zeros(shape, dtype=dtype, device=device)
        self.v: Tensor = torch.zeros(shape, dtype=dtype, device=device)

    @classmethod
    def for_model(cls, model: Transformer, pages: int, page_size: int) -> Self:
        """A pool of the model's shape on its device."""
        return cls(
            layers=model.config.n_layers,
            pages=pages,
            page_size=page_size,
            kv_heads=model.config.n_kv_heads,
            head_dim=model.config.head_dim,
            dtype=model.dtype,
            device=model.device,
        )

    @property
    def size_bytes(self) -> int:
        return 2 * self.k.numel() * self.k.element_size()
