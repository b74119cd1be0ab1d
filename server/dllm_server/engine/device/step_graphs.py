"""CUDA graphs of the forward pass of small steps, whose many launches would take the host longer than the
device takes to run them: a few reuse requests, or the refresh of one, whole or without its prompt."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from dllm_kernels.attention import PagedKeys
from dllm_kernels.cuda_graph import record
from dllm_kernels.layout import padded_rows
from numpy.typing import NDArray
from torch import Tensor

from dllm_server.engine.device.device_table import DeviceTable
from dllm_server.engine.device.forward_inputs import ForwardInputs, pack_columns, pack_group
from dllm_server.engine.device.kv_pool import KvPool
from dllm_server.engine.device.step_attention import StepAttention
from dllm_server.engine.device.upload import Upload
from dllm_server.engine.requests.slots import SlotTable
from dllm_server.engine.schedule.batch import StepBatch
from dllm_server.models.transformer import Transformer

_WARM_UP_RUNS = 2  # compile, and let libraries allocate their workspaces
_FEW_KEYS = 512  # fewer take as long
_REFRESH_STEP = 128  # tokens between two sizes of refresh graphs

Arrays = dict[str, NDArray[Any]]
Forward = Callable[[], Tensor]


class CudaRecorder:
    """Turns a function that launches kernels into one that replays them. All that one recorder has recorded
    share memory: what a replay returns is valid until the next replay of any."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._memory = device, torch.cuda.graph_pool_handle()

    def __call__(self, run: Forward) -> Forward:
        graph, result = record(run, self._device, warm_up_runs=_WARM_UP_RUNS, pool=self._memory)

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


class StepGraphs:
    """Replays the smallest graph that holds a batch."""

    def __init__(
        self,
        model: Transformer,
        pool: KvPool,
        table: SlotTable,
        on_device: DeviceTable,
        record: Callable[[Forward], Forward],
    ) -> None:
        self.model, self.pool, self.table, self.on_device = model, pool, table, on_device
        self.device, self.record = model.device, record
        self._graphs: list[_Graph] = []

    @torch.inference_mode()
    def capture(self, reuse_requests: int, window: int, refresh_tokens: int) -> None:
        """Graphs of 1, 2, 4, ... reuse requests of up to ``window`` rows and 512, 1024, ... keys each, and of
        one refresh of 128, 256, ... tokens, with the prompt and without."""
        longest = min(refresh_tokens, self.table.max_model_len)
        lengths = {*range(_REFRESH_STEP, longest, _REFRESH_STEP), *([longest] if longest else [])}
        counts = {1 << power for power in range(reuse_requests.bit_length())}
        counts |= {reuse_requests} if reuse_requests else set()
        most_keys = self.table.max_model_len + self.table.shift
        keys = {1 << power for power in range(_FEW_KEYS.bit_length() - 1, most_keys.bit_length())}
        sizes = sorted(itertools.product(counts, {min(size, most_keys) for size in keys | {most_keys}}))
        # The largest of all sizes the memory pool.
        graphs: list[_Graph] = [_RefreshGraph(self, length) for length in sorted(lengths, reverse=True)]
        if not self.table.grid:
            widths = sorted((length for length in lengths if length > window), reverse=True)
            graphs += [_ReuseGraph(self, 1, width, most_keys) for width in widths]
        graphs += [_ReuseGraph(self, count, window, keys) for count, keys in sizes[::-1]]
        self._graphs = graphs[::-1]

    def forward(self, batch: StepBatch) -> Tensor | None:
        """Hidden states of all rows, then of padding, valid until the next call; None where no graph holds
        the batch."""
        graph = next((graph for graph in self._graphs if graph.holds(batch)), None)
        return None if graph is None else graph.forward(batch)


class _Graph(ABC):
    """One captured size. Its inputs lie in one buffer that every replay fills with one copy."""

    def __init__(self, owner: StepGraphs) -> None:
        self._owner, upload = owner, Upload()
        keys = {name: upload.add(array) for name, array in self._arrays(None).items()}
        self._buffer = torch.empty(upload.size, dtype=torch.uint8, device=owner.device)
        upload.send(owner.device, into=self._buffer)
        sent = {name: upload.take(key) for name, key in keys.items()}
        self._replay = owner.record(lambda: self._run(sent))

    @abstractmethod
    def holds(self, batch: StepBatch) -> bool: ...

    @abstractmethod
    def _arrays(self, batch: StepBatch | None) -> Arrays:
        """What the graph reads, of fixed sizes: padding, but for the batch's part."""

    @abstractmethod
    def _inputs(self, sent: dict[str, Tensor]) -> ForwardInputs: ...

    def forward(self, batch: StepBatch) -> Tensor:
        upload = Upload()
        for array in self._arrays(batch).values():
            upload.add(array)
        upload.send(self._owner.device, into=self._buffer)
        return self._replay()

    def _run(self, sent: dict[str, Tensor]) -> Tensor:
        owner, inputs = self._owner, self._inputs(sent)
        attention = StepAttention(inputs, owner.pool, owner.model.operations)
        tokens = owner.on_device.tokens(inputs.canvas)
        return owner.model.forward(tokens, inputs.positions, attention)

    def _rows(self, rows: int, batch: StepBatch | None) -> Arrays:
        """Padding rows read the canvas row that is nobody's."""
        table = self._owner.table
        arrays: Arrays = {
            "canvas": np.full(rows, table.slots * table.max_model_len),
            "positions": np.zeros(rows, np.int64),
        }
        if batch is not None:
            arrays["canvas"][: batch.rows] = batch.canvas
            arrays["positions"][: batch.rows] = batch.positions
        return arrays


class _ReuseGraph(_Graph):
    """Reuse of up to ``requests`` requests, each of up to ``window`` rows over up to ``keys`` keys."""

    def __init__(self, owner: StepGraphs, requests: int, window: int, keys: int) -> None:
        self._requests, self._window, self._keys = requests, window, keys
        super().__init__(owner)

    def holds(self, batch: StepBatch) -> bool:
        if batch.refresh_requests or batch.requests > self._requests:
            return False
        return int(batch.lengths.max()) <= self._window and int(batch.key_counts.max()) <= self._keys

    def _arrays(self, batch: StepBatch | None) -> Arrays:
        requests, rows = self._requests, self._requests * self._window
        arrays = self._rows(rows, batch) | {
            "tail_slots": np.zeros(rows, np.int64),
            "slots": np.full(requests, self._owner.table.slots),
            "counts": np.zeros(requests, np.int32),
            "ends": np.zeros(2 * requests + 1, np.int32),
        }
        if batch is not None:
            arrays["tail_slots"][: batch.rows] = batch.tail_slots
            arrays["slots"][: batch.requests] = batch.slots
            arrays["counts"][: batch.requests] = batch.key_counts
            offsets, lengths = arrays["ends"][: requests + 1], arrays["ends"][requests + 1 :]
            offsets[: batch.requests] = batch.starts
            offsets[batch.requests :] = batch.rows
            lengths[: batch.requests] = batch.lengths
        return arrays

    def _inputs(self, sent: dict[str, Tensor]) -> ForwardInputs:
        owner = self._owner
        sizes = np.full(self._requests, self._window)
        rows = padded_rows(np.cumsum(sizes) - sizes, sizes, owner.device, sent["ends"])
        slots = owner.on_device.pool_slots[sent["slots"], : self._keys]
        keys = PagedKeys(slots, sent["counts"], is_padded=True, causal_block=owner.table.grid)
        return ForwardInputs(sent["canvas"], sent["positions"], sent["tail_slots"], [], [], [(rows, keys)])


class _RefreshGraph(_Graph):
    """Refresh of one request of up to ``length`` tokens, a part of whose context is packed."""

    def __init__(self, owner: StepGraphs, length: int) -> None:
        self._length = length
        super().__init__(owner)

    def holds(self, batch: StepBatch) -> bool:
        is_one = batch.requests == batch.refresh_requests == 1
        return is_one and batch.rows <= self._length and not self._owner.table.fixed[batch.slots[0]]

    def _arrays(self, batch: StepBatch | None) -> Arrays:
        table = self._owner.table
        arrays = self._rows(self._length, batch) | {
            "ends": np.zeros(3, np.int32),
            "pack": np.array([[table.slots], [0], [0], [1], [0]]),  # keeps nothing
        }
        if batch is not None:
            arrays["ends"][1:] = batch.rows
            arrays["pack"] = pack_columns(table, batch.slots)
            arrays["pack"][1] *= table.packs[batch.slots]
        return arrays

    def _inputs(self, sent: dict[str, Tensor]) -> ForwardInputs:
        owner, size = self._owner, np.array([self._length])
        rows = padded_rows(np.array([0]), size, owner.device, sent["ends"])
        most = min(self._length, owner.on_device.pool_slots.shape[1])
        pack = pack_group(rows, sent["pack"], owner.on_device, most, keeps_all=False)
        return ForwardInputs(sent["canvas"], sent["positions"], sent["pack"][0, :0], [rows], [pack], [])
