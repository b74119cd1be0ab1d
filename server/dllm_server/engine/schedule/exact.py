"""The course of block-causal models: a block sees what comes before it and itself, so that its K/V are final
once a step has seen its final tokens.

A prompt's whole blocks are prefilled in pieces; what is left of it begins the first block that is denoised.
The step that first denoises a block also queries the block before it, whose K/V it makes final. Where logits
are shifted that takes a step of its own, which also gives the next block's first token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from dllm_server.engine.requests.pages import Chunk, PageStore
from dllm_server.engine.requests.request import Phase, Request
from dllm_server.engine.requests.slots import SlotTable
from dllm_server.engine.schedule.course import Course, TokenCost
from dllm_server.engine.schedule.scheduler import Running, Waiting


class PrefillDenoise(Course):
    """Pages come with the tokens they hold, and hold them in their order, so that prefixes can be shared."""

    phases = (Phase.PREFILL, Phase.DENOISE)

    def __init__(self, table: SlotTable, store: PageStore, page_size: int, token_cost: TokenCost) -> None:
        super().__init__(table, store, token_cost)
        self._page_size = page_size

    def cost(self, request: Request, waited_steps: int) -> Running:
        slot, until = request.slot, self._until(request)
        is_long = request.phase is Phase.PREFILL
        missing = self._pages(until) - self.store.held_pages(slot)
        return Running(
            slot,
            is_long,
            until - request.computed,
            waited_steps,
            grain=self.table.grid if is_long else 0,
            pages=max(missing, 0),
            weight=self.token_cost.weight(request.computed),
        )

    def least_tokens(self, request: Request) -> int:
        return min(2 * self.table.grid, request.sequence_tokens)

    def queue(self, waiting: Iterable[Request], step: int) -> Iterator[Waiting]:
        """Who waits for a prefix that another is about to compute is not admitted yet."""
        making: set[Chunk] = set()
        for request in waiting:
            found = self.store.find(request.prefix)
            coming = request.prefix[len(found) :]
            if coming and (coming[0] in making or self.store.is_coming(coming[0])):
                return
            making.update(coming)
            computed = len(found) * self.store.chunk_tokens
            yield Waiting(
                self._first_until(request) - computed,
                self.store.pages_beyond(found, self._pages(self._first_end(request))),
                step - request.last_step,
                grain=self.table.grid,
                weight=self.token_cost.weight(computed),
            )

    def admit(self, request: Request) -> None:
        table, slot = self.table, request.slot
        found = self.store.find(request.prefix)
        is_new = request.saved is None
        request.computed = self.store.admit(slot, found, len(request.message.prompt) if is_new else 0)
        if is_new:
            request.cached_tokens = request.computed
        self.store.announce(slot, request.prefix[len(found) :])
        held = self.store.held(slot)
        pages = held + self.store.extend(slot, self._pages(self._first_end(request)) - len(held))
        table.fill(slot, request, pages)
        self._start_block(request, self._first_start(request))
        if request.saved is not None:
            request.steps_in_block, request.post_edit_steps = request.saved.in_block
            request.saved = None

    def arrive(self, request: Request) -> None:
        start, tokens = self._first_start(request), request.message.prompt
        if request.saved is not None:
            tokens = [*tokens, *request.saved.token_ids[: max(start - len(tokens), 0)].tolist()]
        # Shifted logits of the last token before the block give its first one: a step has to see it.
        last = start - self.table.grid if self.table.shift else start
        request.prefix = self.store.names(tokens[: max(last, 0)], request.message.cache_salt)

    def place(self, request: Request, tokens: int) -> None:
        table, slot = self.table, request.slot
        until = request.computed + tokens
        table.query(slot, (request.computed, until), self._open(request, until))
        table.quota[slot], table.edit_threshold[slot] = request.share, request.edit_threshold
        held = self.store.held_pages(slot)
        missing = self._pages(until) - held
        if missing > 0:
            table.put_pages(slot, held, self.store.extend(slot, missing))
            entries = np.arange(held * self._page_size, (held + missing) * self._page_size)
            self.growth.slots.append(np.full(len(entries), slot))
            self.growth.entries.append(entries)

    def refreshes(self, request: Request) -> bool:
        return False

    def commits(self, request: Request) -> int | None:
        table, slot = self.table, request.slot
        if table.open_start[slot] == table.open_end[slot]:
            return 0
        is_whole = table.until[slot] > table.block_start[slot] and table.edit_threshold[slot] == np.inf
        return request.quota if is_whole and request.message.diffusion.sub_block_length is None else None

    def launched(self, request: Request) -> int:
        table, slot = self.table, request.slot
        start, until = int(table.block_start[slot]), int(table.until[slot])
        request.computed = min(until, start)
        request.steps_in_block += until > start
        return request.computed

    def publish(self, request: Request, final_tokens: int) -> None:
        store, slot = self.store, request.slot
        if final_tokens >= store.published_tokens(slot) + store.chunk_tokens:
            store.publish(slot, self.table.token_ids[slot, :final_tokens], request.message.cache_salt)

    def go_on(self, request: Request, masks_left: int, *, edits: int = 0) -> bool:
        table, slot = self.table, request.slot
        started_without_masks = request.masks_left == 0
        request.masks_left = masks_left
        if masks_left > 0 or self._goes_on_editing(request, edits, started_without_masks):
            request.enter(self._phase(request))
            return False
        if started_without_masks and not edits:
            request.computed = int(table.block_end[slot])  # the step has seen the final tokens
        end = int(table.block_end[slot])
        if end >= table.sequence_len[slot]:
            request.enter(Phase.DRAINING)
        else:
            self._start_block(request, end)
        return True

    def _goes_on_editing(self, request: Request, edits: int, started_without_masks: bool) -> bool:
        diffusion = request.message.diffusion
        if not request.edits or (started_without_masks and not edits):
            return False
        request.post_edit_steps += 1
        return request.post_edit_steps <= diffusion.max_post_edit_steps

    def _start_block(self, request: Request, start: int) -> None:
        table, slot = self.table, request.slot
        end = start + table.grid
        table.block_start[slot], table.block_end[slot] = start, end
        masks = int(table.is_masked[slot, start:end].sum())
        request.post_edit_steps = 0
        request.start_block(start, masks, self._phase(request))

    def _phase(self, request: Request) -> Phase:
        """Denoising takes the one block before along that has just been finished."""
        before = int(self.table.block_start[request.slot]) - request.computed
        return Phase.PREFILL if before > self.table.grid else Phase.DENOISE

    def _until(self, request: Request) -> int:
        """Behind the last position that the next step queries if it may query all it wants."""
        start, end = int(self.table.block_start[request.slot]), int(self.table.block_end[request.slot])
        is_first_known = not self.table.is_masked[request.slot, start]
        return end if not self.table.shift or is_first_known else start

    def _open(self, request: Request, until: int) -> tuple[int, int]:
        """Positions that a step may choose tokens for which queries those before ``until``."""
        table, slot = self.table, request.slot
        start, end = int(table.block_start[slot]), int(table.block_end[slot])
        if until < start:
            return start, start
        if until == start:  # with shifted logits: the first token of the block
            return (start, start + 1) if table.shift and table.is_masked[slot, start] else (start, start)
        size = request.message.diffusion.sub_block_length
        if size is None:
            return start, end
        first_mask = int(table.is_masked[slot, start:end].argmax())
        first = start + first_mask // size * size
        return first, first + size

    def _first_start(self, request: Request) -> int:
        """Where the block begins that the request goes on with, or begins with."""
        if request.saved is not None:
            return request.saved.block_start
        return len(request.message.prompt) // self.table.grid * self.table.grid

    def _first_end(self, request: Request) -> int:
        return self._first_start(request) + self.table.grid

    def _first_until(self, request: Request) -> int:
        """What ``_until`` will say once the request has a slot."""
        place = self._first_start(request) - len(request.message.prompt)  # of the block's first token
        is_masked = place >= 0 and (request.saved is None or bool(request.saved.is_masked[place]))
        return self._first_start(request) if self.table.shift and is_masked else self._first_end(request)

    def _pages(self, tokens: int) -> int:
        return -(-tokens // self._page_size)
