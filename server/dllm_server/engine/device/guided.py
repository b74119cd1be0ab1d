"""The head of requests with a grammar: each token is chosen among those that the grammar allows there, which
only the token before it tells. A choice takes a round trip to the host; what is forced takes none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from dllm_kernels.commit import NOT_FINITE
from dllm_kernels.layout import IntArray
from dllm_kernels.lm_head import Sampling, float32_logits
from dllm_kernels.noise import noise_keys, uniform
from dllm_kernels.whole_logits import WholeRows, choose_from
from numpy.typing import NDArray
from torch import Tensor

from dllm_server.engine.device.commit import OTHER_NOISE
from dllm_server.engine.device.pending_step import GuidedTokens, NamedTokens
from dllm_server.engine.device.upload import Upload
from dllm_server.engine.requests.messages import MOST_ALTERNATIVES
from dllm_server.engine.requests.slots import BY_POSITION, CONFIDENCES, STRATEGIES, SlotTable
from dllm_server.engine.schedule.batch import StepBatch
from dllm_server.memory import MOST_WHOLE_ROWS
from dllm_server.models.transformer import Transformer
from dllm_server.settings import Confidence
from dllm_server.structure.bound import Bound
from dllm_server.structure.run import Run

_TINY = float(np.finfo(np.float32).tiny)
_RANDOM = CONFIDENCES.index(Confidence.RANDOM)
Named = tuple[list[int], list[float]]


@dataclass(slots=True)
class _Filling:
    """A request's run, whose first row of those of all is ``start`` and predicts ``position``. ``named`` are
    the likeliest tokens at each place that was chosen."""

    run: Run
    slot: int
    start: int
    position: int
    named: dict[int, Named] = field(default_factory=dict)
    is_broken: bool = False

    @property
    def place(self) -> int:
        return len(self.run.tokens)


Asking = list[tuple[_Filling, NDArray[np.uint8]]]


class GuidedHead:
    """A model's projection for rows with a grammar, ``MOST_WHOLE_ROWS`` at a time."""

    def __init__(self, model: Transformer, table: SlotTable) -> None:
        self._model, self._table = model, table

    def fill(self, hidden: Tensor, batch: StepBatch, max_num_logits: int) -> GuidedTokens | None:
        """``hidden``: ``[guided, d_model]``, in the order of ``batch.guided``. None where there is no row.

        The masks of the first positions are made while the device is still at the forward pass.
        """
        rows = batch.guided
        if not len(rows.row):
            return None
        members, starts, rooms = np.unique(rows.request, return_index=True, return_counts=True)
        fillings = [
            self._filling(int(slot), start, room, int(rows.position[start]))
            for slot, start, room in zip(batch.slots[members], starts.tolist(), rooms.tolist(), strict=True)
        ]
        most = min(max_num_logits, MOST_WHOLE_ROWS)
        for first in range(0, len(fillings), most):
            self._fill(fillings[first : first + most], hidden, most)
        return self._tokens(fillings, batch)

    def _filling(self, slot: int, start: int, room: int, position: int) -> _Filling:
        table = self._table
        bound = Bound(
            STRATEGIES[table.strategy[slot]],
            float(table.value[slot]),
            int(table.quota[slot]),
            float(table.threshold[slot]),
            counts_own=table.grid > 0,
        )
        unended = max(int(table.stops_from[slot]) - position, 0)
        stops = tuple(table.stop_token_ids[slot, : table.stop_count[slot]].tolist()) if unended else ()
        run = Run(table.matches[slot], bound, room, unended, stops)
        run.begin(position - int(table.guided_from[slot]))
        return _Filling(run, slot, start, position)

    def _fill(self, fillings: Sequence[_Filling], hidden: Tensor, most: int) -> None:
        """Of so few requests that each can have a row of logits. The rows left over hold those of positions
        further on, so that one product with the vocabulary may do for a run."""
        asking = _asking(fillings)
        while asking:
            columns = most // len(asking)
            ends = {filling.slot: min(filling.place + columns, filling.run.room) for filling, _ in asking}
            spans = [(one.start + one.place, one.start + ends[one.slot]) for one, _ in asking]
            logits = float32_logits(
                torch.cat([hidden[first:last] for first, last in spans]), self._model.lm_head
            )
            # Logits of a row lie so far behind the row itself.
            shift = np.cumsum([0] + [last - first for first, last in spans])[:-1] - [
                first for first, _ in spans
            ]
            shifts = {filling.slot: int(by) for (filling, _), by in zip(asking, shift, strict=True)}
            inside, later = asking, Asking()
            while inside:
                rows = np.array([one.start + one.place + shifts[one.slot] for one, _ in inside])
                self._choose(inside, logits, rows)
                again = _asking(filling for filling, _ in inside)
                inside = [one for one in again if one[0].place < ends[one[0].slot]]
                later += [one for one in again if one[0].place >= ends[one[0].slot]]
            asking = later

    def _choose(self, asking: Asking, logits: Tensor, rows: IntArray) -> None:
        """Offer each run what its row of ``logits`` gives; if all rows are taken they are consumed."""
        table, upload = self._table, Upload()
        slots = np.array([filling.slot for filling, _ in asking])
        kinds, temperature = table.confidence[slots], table.temperature[slots]
        columns = {
            "row": rows,
            "allowed": np.stack([bits for _, bits in asking]),
            "temperature": temperature,
            "seed": table.seed[slots],
            "position": np.array([filling.position + filling.place for filling, _ in asking]),
            "step": table.step[slots],
        }
        if table.is_filtered[slots].any():
            columns |= {"top_p": table.top_p[slots], "top_k": table.top_k[slots]}
        uploads = {name: upload.add(column) for name, column in columns.items()}
        upload.send(logits.device)
        sent = {name: upload.take(key) for name, key in uploads.items()}
        keys = noise_keys(sent["seed"], sent["position"], sent["step"])
        whole = WholeRows(
            Sampling(sent["temperature"], keys) if temperature.any() else None,
            sent.get("top_p"),
            sent.get("top_k"),
            allowed=sent["allowed"],
            alternatives=MOST_ALTERNATIVES if table.alternatives[slots].any() else 0,
        )
        is_all = len(rows) == logits.shape[0]
        choice, others = choose_from(logits if is_all else logits[sent["row"]], whole)
        ranks = [choice.probability, choice.margin, choice.entropy]
        if (kinds == _RANDOM).any():
            ranks.append(uniform(keys ^ OTHER_NOISE, 1)[:, 0])
        named = [*others.token.to(torch.int32).T, *others.logprob.view(torch.int32).T]
        numbers = [choice.token.to(torch.int32), *(one.view(torch.int32) for one in ranks), *named]
        bits = torch.stack(numbers).cpu().numpy()
        first = 1 + len(ranks)
        told = bits[1:first].view(np.float32).T.tolist()
        width = others.token.shape[1]
        likeliest = bits[first : first + width].T.tolist(), bits[first + width :].view(np.float32).T.tolist()
        for index, (filling, _) in enumerate(asking):
            names = (likeliest[0][index], likeliest[1][index]) if table.alternatives[slots[index]] else None
            _offer(filling, int(bits[0, index]), told[index], int(kinds[index]), names)

    def _tokens(self, fillings: Sequence[_Filling], batch: StepBatch) -> GuidedTokens:
        rows, width = batch.guided, min(MOST_ALTERNATIVES, self._model.config.vocab_size)
        index, tokens, logprobs = [], [], []
        named_cells, named_tokens, named_logprobs = [], [], []
        for filling in fillings:
            run, start = filling.run, filling.start
            if filling.is_broken:
                index.append(start)
                tokens.append(NOT_FINITE)
                logprobs.append(np.nan)
                continue
            index += range(start, start + len(run.tokens))
            tokens += run.tokens
            logprobs += run.logprobs
            if self._table.alternatives[filling.slot]:
                for place, token in enumerate(run.tokens):
                    alone = [token] + [0] * (width - 1), [0.0] + [-np.inf] * (width - 1)
                    names = filling.named.get(place, alone)
                    named_cells.append(int(rows.cell[start + place]))
                    named_tokens.append(names[0])
                    named_logprobs.append(names[1])
        taken = np.array(index, np.int64)
        named = NamedTokens(
            np.array(named_cells, np.int64),
            np.array(named_tokens, np.int32),
            np.array(named_logprobs, np.float32),
        )
        return GuidedTokens(
            rows.cell[taken],
            rows.canvas[taken],
            np.array(tokens, np.int32),
            np.array(logprobs, np.float32),
            named if named_cells else None,
        )


def _asking(fillings: Iterable[_Filling]) -> Asking:
    """Those that want a token, with what is allowed."""
    found = ((filling, filling.run.ask()) for filling in fillings if not filling.is_broken)
    return [(filling, bits) for filling, bits in found if bits is not None]


def _offer(filling: _Filling, token: int, told: Sequence[float], kind: int, named: Named | None) -> None:
    """``told``: the token's probability, margin and entropy, and perhaps a random number."""
    probability, margin, entropy = told[:3]
    if not math.isfinite(probability):
        filling.is_broken = True
        return
    ranks = {
        Confidence.PROBABILITY: probability,
        Confidence.MARGIN: margin,
        Confidence.ENTROPY: -entropy,
        Confidence.RANDOM: told[-1],
    }
    confidence = 0.0 if kind == BY_POSITION else ranks[CONFIDENCES[kind]]
    place, logprob = filling.place, math.log(max(probability, _TINY))
    if filling.run.offer(token, logprob, confidence, entropy) and named is not None:
        filling.named[place] = named
