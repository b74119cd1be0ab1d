"""A step's attention over its own rows and the pool."""

from __future__ import annotations

import torch
from dllm_kernels.backend import Operations
from torch import Tensor

from dllm_server.engine.device.forward_inputs import ForwardInputs
from dllm_server.engine.device.kv_pool import KvPool


class StepAttention:
    """Refresh rows attend among themselves and pack their K/V; reuse rows attend to pages and their own."""

    def __init__(
        self, inputs: ForwardInputs, pool: KvPool, operations: Operations, *, shares_indices: bool = False
    ) -> None:
        self._inputs, self._pool, self._run = inputs, pool, operations
        self._shares_indices = shares_indices
        self._split = inputs.positions.shape[0] - inputs.tail_slots.shape[0]
        self._out: Tensor | None = None

    @property
    def tail_slots(self) -> Tensor:
        return self._inputs.tail_slots

    def pools(self, layer: int) -> tuple[Tensor, Tensor]:
        return self._pool.k[layer], self._pool.v[layer]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See ``dllm_server.models.transformer.StepAttention``."""
        inputs, split = self._inputs, self._split
        k_pool, v_pool = self.pools(layer)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        if split:
            fresh = q[:split], k[:split], v[:split]
            self._run.varlen_attention(*fresh, inputs.refresh_groups, out[:split])
            if inputs.pack_groups:
                self._run.select_and_pack(
                    *fresh, inputs.pack_groups, k_pool, v_pool, shares_indices=self._shares_indices
                )
        if split < q.shape[0]:
            self._run.paged_attention(q[split:], k_pool, v_pool, inputs.reuse_groups, out[split:])
        return out.flatten(1)
