"""CUDA graphs of the forward pass of reuse-only steps, one for each number of requests."""

from __future__ import annotations

import numpy as np
import torch
from dllm_kernels.attention import PagedKeys
from dllm_kernels.layout import padded_rows
from torch import Tensor

from dllm_server.engine.batch import StepBatch
from dllm_server.engine.device_table import DeviceTable
from dllm_server.engine.forward_inputs import ForwardInputs
from dllm_server.engine.kv_pool import KvPool
from dllm_server.engine.slots import SlotTable
from dllm_server.engine.step_attention import StepAttention
from dllm_server.engine.upload import Upload
from dllm_server.models.transformer import Transformer

_WARM_UP_RUNS = 2  # compile, and let libraries allocate their workspaces


class _Graph:
    """Steps of up to ``requests`` requests, each of up to ``window`` rows."""

    def __init__(self, graphs: ReuseGraphs, requests: int, window: int) -> None:
        self._owner, self._requests, self._window = graphs, requests, window
        self._graph = torch.cuda.CUDAGraph()
        upload, keys = self._upload(None)
        self._inputs = torch.zeros(upload.size, dtype=torch.uint8, device=graphs.device)
        upload.send(graphs.device, into=self._inputs)
        self._hidden = self._capture(upload, keys)

    def forward(self, batch: StepBatch) -> Tensor:
        """Hidden states of the batch's rows and of padding; valid until the next call of any graph."""
        upload, _ = self._upload(batch)
        upload.send(self._owner.device, into=self._inputs)
        self._graph.replay()
        return self._hidden

    def _upload(self, batch: StepBatch | None) -> tuple[Upload, dict[str, int]]:
        """The batch padded to the graph's size, or padding alone."""
        requests, rows = self._requests, self._requests * self._window
        owner, upload = self._owner, Upload()
        arrays = {
            "canvas": np.full(rows, owner.padding_canvas),
            "positions": np.zeros(rows, np.int64),
            "tail_slots": np.zeros(rows, np.int64),
            "slots": np.full(requests, owner.padding_slot),
            "counts": np.zeros(requests, np.int32),
            "ends": np.zeros(2 * requests + 1, np.int32),
        }
        if batch is not None:
            arrays["canvas"][: batch.rows] = batch.canvas
            arrays["positions"][: batch.rows] = batch.positions
            arrays["tail_slots"][: batch.rows] = batch.tail_slots
            arrays["slots"][: batch.requests] = batch.slots
            arrays["counts"][: batch.requests] = batch.key_counts
            offsets, lengths = arrays["ends"][: requests + 1], arrays["ends"][requests + 1 :]
            offsets[: batch.requests] = batch.starts
            offsets[batch.requests :] = batch.rows
            lengths[: batch.requests] = batch.lengths
        return upload, {name: upload.add(array) for name, array in arrays.items()}

    def _capture(self, upload: Upload, keys: dict[str, int]) -> Tensor:
        owner, sizes = self._owner, np.full(self._requests, self._window)
        taken = {name: upload.take(key) for name, key in keys.items()}
        rows = padded_rows(np.cumsum(sizes) - sizes, sizes, owner.device, taken["ends"])

        def run() -> Tensor:
            pages = PagedKeys(owner.on_device.pool_slots[taken["slots"]], taken["counts"], is_padded=True)
            inputs = ForwardInputs(
                taken["canvas"], taken["positions"], taken["tail_slots"], [], [], [(rows, pages)]
            )
            attention = StepAttention(inputs, owner.pool, owner.model.operations)
            return owner.model.forward(owner.on_device.tokens(inputs.canvas), inputs.positions, attention)

        stream = torch.cuda.Stream(owner.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(owner.device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_RUNS):
                run()
        torch.cuda.current_stream(owner.device).wait_stream(stream)
        with torch.cuda.graph(self._graph, pool=owner.memory):
            return run()


class ReuseGraphs:
    """Replays the smallest graph that holds a batch. All share one memory pool, as one runs at a time."""

    def __init__(self, model: Transformer, pool: KvPool, table: SlotTable, on_device: DeviceTable) -> None:
        self.model, self.pool, self.on_device, self.device = model, pool, on_device, model.device
        self.padding_slot = table.slots
        self.padding_canvas = table.slots * table.max_model_len
        self.memory = torch.cuda.graph_pool_handle()
        self.window = 0
        self._graphs: dict[int, _Graph] = {}

    @torch.inference_mode()
    def capture(self, max_requests: int, window: int) -> None:
        """Graphs of 1, 2, 4, ... requests of up to ``window`` rows each."""
        self.window = window
        sizes = [1 << power for power in range(max_requests.bit_length())]
        for requests in sorted({*sizes, max_requests}, reverse=True):  # the largest sizes the memory pool
            self._graphs[requests] = _Graph(self, requests, window)

    def forward(self, batch: StepBatch) -> Tensor | None:
        """Hidden states of all rows, then of padding; None where no graph holds the batch."""
        if batch.refresh_requests or int(batch.lengths.max()) > self.window:
            return None
        fitting = [requests for requests in self._graphs if requests >= batch.requests]
        return self._graphs[min(fitting)].forward(batch) if fitting else None
