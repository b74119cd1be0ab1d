"""How requests go from step to step: what the next step costs them, which positions it queries, and what
follows it. One course for all requests of a model, by its kind of attention. Host arrays, no tensors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from dllm_kernels.layout import IntArray

from dllm_server.engine.requests.pages import PageStore
from dllm_server.engine.requests.refresh import refresh_end
from dllm_server.engine.requests.request import Phase, Request
from dllm_server.engine.requests.slots import SlotTable
from dllm_server.engine.schedule.scheduler import Running, Waiting


@dataclass(slots=True)
class Growth:
    """Entries that have come to requests since the device was told: one each of ``slots`` and ``entries``."""

    slots: list[IntArray] = field(default_factory=list)
    entries: list[IntArray] = field(default_factory=list)

    def tell(self, grow: Callable[[IntArray, IntArray], None]) -> None:
        """``grow`` takes all of them, once it returns."""
        if self.slots:
            grow(np.concatenate(self.slots), np.concatenate(self.entries))
            self.slots, self.entries = [], []


@dataclass(frozen=True, slots=True)
class TokenCost:
    """What tokens take in a step that can be cut: up to ``free_tokens`` no more than one, as long as the read
    of the weights takes longer than their products; one that sees ``dear_keys`` keys as much as two that see
    few. No ``free_tokens``: long phases cannot be cut."""

    free_tokens: int = 0
    dear_keys: float = math.inf

    def weight(self, keys: int) -> float:
        """Of a token that sees so many keys."""
        return 1.0 + keys / self.dear_keys


class Course(ABC):
    """A request is ``admit``ted to its slot; for each of its steps it is asked for its ``cost``, ``place``d,
    counted as ``launched``, and sent on by ``go_on`` once the outcome is known. ``phases``: the long one and
    the short one."""

    phases: ClassVar[tuple[Phase, Phase]]

    def __init__(self, table: SlotTable, store: PageStore, token_cost: TokenCost = TokenCost()) -> None:
        self.table, self.store, self.token_cost = table, store, token_cost
        self.growth = Growth()

    @abstractmethod
    def cost(self, request: Request, waited_steps: int) -> Running: ...

    @abstractmethod
    def least_tokens(self, request: Request) -> int:
        """What a step must be able to query of it at once."""

    @abstractmethod
    def queue(self, waiting: Iterable[Request], step: int) -> Iterator[Waiting]:
        """Costs of the requests that could be admitted now, in their order."""

    @abstractmethod
    def arrive(self, request: Request) -> None:
        """Before it waits, for the first time or again."""

    @abstractmethod
    def admit(self, request: Request) -> None:
        """Take pages and fill the slot that the request has; its first step follows."""

    @abstractmethod
    def place(self, request: Request, tokens: int) -> None:
        """The next step queries so many of its tokens: those of its cost, or a part of them."""

    @abstractmethod
    def refreshes(self, request: Request) -> bool:
        """Whether the next step queries the whole sequence."""

    @abstractmethod
    def commits(self, request: Request) -> int | None:
        """Masks that the step it is placed for fills, while there are so many; None where its outcome
        tells."""

    @abstractmethod
    def launched(self, request: Request) -> int:
        """The step is on its way to the device, which runs steps in the order of their launches. The tokens
        whose K/V are final then."""

    @abstractmethod
    def publish(self, request: Request, final_tokens: int) -> None:
        """The step that made so many of its K/V final has been carried out, and its tokens are known."""

    @abstractmethod
    def go_on(self, request: Request, masks_left: int, *, edits: int = 0) -> bool:
        """What follows a step that leaves so many masks in the block; whether the block is done."""


class RefreshReuse(Course):
    """Every position sees every other: a refresh of the whole sequence packs what the steps of a block reuse.
    A refresh that leaves the prompt out reads what was packed of it and keeps the rest whole, as a step over
    a longer block would. Pages are reserved for a request's whole life."""

    phases = (Phase.REFRESH, Phase.REUSE)

    def cost(self, request: Request, waited_steps: int) -> Running:
        is_refresh, (first, until) = request.phase is Phase.REFRESH, self._rows(request)
        return Running(request.slot, is_refresh, until - first, waited_steps)

    def least_tokens(self, request: Request) -> int:
        return request.sequence_tokens

    def queue(self, waiting: Iterable[Request], step: int) -> Iterator[Waiting]:
        for request in waiting:
            yield Waiting(request.sequence_tokens, request.pages, step - request.last_step)

    def arrive(self, request: Request) -> None:
        """What it takes is known."""

    def admit(self, request: Request) -> None:
        table, slot = self.table, request.slot
        self.store.admit(slot)
        table.fill(slot, request, self.store.extend(slot, request.pages))
        request.fixed = int(table.fixed[slot])
        # A step has a block, be it a prompt's last token.
        self._start_block(request, min(len(request.message.prompt), request.sequence_tokens - 1))

    def place(self, request: Request, tokens: int) -> None:
        table, slot = self.table, request.slot
        table.quota[slot] = request.share
        if request.fixed and not self.refreshes(request):
            table.first[slot], table.until[slot] = self._rows(request)

    def refreshes(self, request: Request) -> bool:
        return request.phase is Phase.REFRESH and request.takes_prompt

    def commits(self, request: Request) -> int | None:
        return request.quota

    def launched(self, request: Request) -> int:
        request.steps_in_block += 1
        return 0

    def publish(self, request: Request, final_tokens: int) -> None:
        """Packed K/V are good for their own request only."""

    def go_on(self, request: Request, masks_left: int, *, edits: int = 0) -> bool:
        if masks_left > 0:
            request.masks_left = masks_left
            request.enter(request.next_phase_in_block())
            return False
        end = int(self.table.block_end[request.slot])
        if end == self.table.sequence_len[request.slot]:
            request.enter(Phase.DRAINING)
        else:
            self._start_block(request, end)
        return True

    def _rows(self, request: Request) -> tuple[int, int]:
        """Positions that the next step queries."""
        if self.refreshes(request):
            return 0, request.sequence_tokens
        start, end = int(self.table.block_start[request.slot]), int(self.table.block_end[request.slot])
        if request.phase is not Phase.REFRESH:
            return start - self.table.shift, end
        window = request.message.diffusion.refresh_window
        return request.fixed, refresh_end(end, request.sequence_tokens, window)

    def _start_block(self, request: Request, start: int) -> None:
        self.table.start_block(request.slot, start)
        request.start_block(start, int(self.table.block_end[request.slot]) - start, Phase.REFRESH)
