"""CUDA graphs of the forward pass of small steps, whose many launches would take the host longer than the
device takes to run them: a few reuse requests, or the refresh of one, whole or without its prompt."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from dllm_kernels.attention import PagedKeys
from dllm_kernels.cuda_graph import record
from dllm_kernels.layout import PaddedRows, padded_rows
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
_ROWS_STEP = 16  # between two sizes of graphs of as many requests, at least
_PIECE_STEP = 64  # the same with a piece of a prefill
_MOST_REUSE_ROWS = 512  # more keep the device longer than their launches keep the host
_MOST_ROWS = 2560  # of block-causal models, whose steps seldom have other rows
_MOST_PIECE_ROWS = 768  # of steps with a piece of a prefill, which attends longer
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
        """Graphs of 1, 2, 4, ... reuse requests of up to ``window`` rows each, of one refresh of 128, 256 and
        so on, with the prompt and without, and of 1, 4, ... requests beside a piece of a prefill."""
        longest = min(refresh_tokens, self.table.max_model_len)
        lengths = {*range(_REFRESH_STEP, longest, _REFRESH_STEP), *([longest] if longest else [])}
        # The largest of all sizes the memory pool.
        graphs: list[_Graph] = [_RefreshGraph(self, length) for length in sorted(lengths, reverse=True)]
        if not self.table.grid:
            widths = sorted((length for length in lengths if length > window), reverse=True)
            graphs += [_ReuseGraph(self, 1, width, width) for width in widths]
        sizes = sorted(self._reuse_sizes(reuse_requests, window), reverse=True)
        graphs += [_ReuseGraph(self, *size, window) for size in sizes]
        if self.table.grid:
            graphs += [_PieceGraph(self, *size, window) for size in self._piece_sizes(reuse_requests)]
        self._graphs = graphs[::-1]

    def _reuse_sizes(self, most: int, window: int) -> Iterator[tuple[int, int]]:
        """Requests and rows. Where a part of a window is seldom there, also fewer rows: padding costs little
        only as long as the weights' read is what takes time."""
        grid = self.table.grid
        for count in {1 << power for power in range(most.bit_length())} | ({most} if most else set()):
            step = max(_ROWS_STEP, grid, count * grid // 32)
            rows = range(count * window, max(count * (grid or window) - step, 0), -step)
            yield from ((count, size) for size in rows if size <= (_MOST_ROWS if grid else _MOST_REUSE_ROWS))

    def _piece_sizes(self, most: int) -> Iterator[tuple[int, int]]:
        """Requests and rows, the largest first."""
        counts = {min(1 << 2 * power, most) for power in range(most.bit_length())} if most else set()
        rows = range(_PIECE_STEP, _MOST_PIECE_ROWS + 1, _PIECE_STEP)
        for count, size in itertools.product(sorted(counts, reverse=True), reversed(rows)):
            if count * self.table.grid < size:
                yield count, size

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
    """Reuse of up to ``requests`` requests of ``rows`` rows in all, each of up to ``window`` rows."""

    def __init__(self, owner: StepGraphs, requests: int, rows: int, window: int) -> None:
        self._requests, self._most_rows, self._window = requests, rows, window
        super().__init__(owner)

    def holds(self, batch: StepBatch) -> bool:
        if batch.refresh_requests or batch.requests > self._requests or batch.rows > self._most_rows:
            return False
        return int(batch.lengths.max()) <= self._window

    def _arrays(self, batch: StepBatch | None) -> Arrays:
        return self._flat(batch) | self._group(
            "reuse", self._requests, batch, 0, batch.requests if batch else 0
        )

    def _inputs(self, sent: dict[str, Tensor]) -> ForwardInputs:
        groups = [self._taken("reuse", self._requests, self._window, sent)]
        return ForwardInputs(sent["canvas"], sent["positions"], sent["tail_slots"], [], [], groups)

    def _flat(self, batch: StepBatch | None) -> Arrays:
        arrays = self._rows(self._most_rows, batch) | {"tail_slots": np.zeros(self._most_rows, np.int64)}
        if batch is not None:
            arrays["tail_slots"][: batch.rows] = batch.tail_slots
        return arrays

    def _group(self, name: str, requests: int, batch: StepBatch | None, first: int, last: int) -> Arrays:
        """Requests ``first`` to ``last`` of the batch, then such without rows."""
        slots, counts = np.full(requests, self._owner.table.slots), np.zeros(requests, np.int32)
        ends, count = np.zeros(2 * requests + 1, np.int32), last - first
        if batch is not None and count:
            offsets, lengths = ends[: requests + 1], ends[requests + 1 :]
            slots[:count], counts[:count] = batch.slots[first:last], batch.key_counts[first:last]
            offsets[:count], lengths[:count] = batch.starts[first:last], batch.lengths[first:last]
            offsets[count:] = batch.starts[last - 1] + batch.lengths[last - 1]
        return {f"{name}_slots": slots, f"{name}_counts": counts, f"{name}_ends": ends}

    def _taken(
        self, name: str, requests: int, longest: int, sent: dict[str, Tensor]
    ) -> tuple[PaddedRows, PagedKeys]:
        owner, sizes = self._owner, np.full(requests, longest)
        # The device's ends count, not the host's.
        rows = padded_rows(np.zeros(requests, np.int64), sizes, owner.device, sent[f"{name}_ends"])
        slots = owner.on_device.pool_slots[
            sent[f"{name}_slots"], : owner.table.max_model_len + owner.table.shift
        ]
        return rows, PagedKeys(slots, sent[f"{name}_counts"], is_padded=True, causal_block=owner.table.grid)


class _PieceGraph(_ReuseGraph):
    """The same with a piece of a prefill, whose rows are the last."""

    def holds(self, batch: StepBatch) -> bool:
        short = batch.requests - 1
        if batch.wide_requests != 1 or short > self._requests or batch.rows > self._most_rows:
            return False
        return not batch.refresh_requests and int(batch.lengths[:short].max(initial=0)) <= self._window

    def _arrays(self, batch: StepBatch | None) -> Arrays:
        count = batch.requests if batch else 1
        arrays = self._flat(batch) | self._group("reuse", self._requests, batch, 0, count - 1)
        return arrays | self._group("piece", 1, batch, count - 1, count if batch else 0)

    def _inputs(self, sent: dict[str, Tensor]) -> ForwardInputs:
        short = self._taken("reuse", self._requests, self._window, sent)
        piece = self._taken("piece", 1, self._most_rows, sent)
        return ForwardInputs(sent["canvas"], sent["positions"], sent["tail_slots"], [], [], [short, piece])


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
