"""The host's table of admitted requests: one row a slot, so that a step's plan is built by array
operations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from dllm_kernels.layout import IntArray
from numpy.typing import NDArray

from dllm_server.engine.requests.messages import MOST_STOP_TOKENS, Generate
from dllm_server.engine.requests.refresh import fixed_tokens
from dllm_server.engine.requests.request import Request, Saved
from dllm_server.memory import kept_context_tokens
from dllm_server.settings import Confidence, Strategy
from dllm_server.structure.match import GrammarMatch

STRATEGIES = tuple(Strategy)
CONFIDENCES = tuple(Confidence)
BY_POSITION = len(CONFIDENCES)  # in the place of a confidence: positions are ranked from left to right


class SlotTable:
    """Numbers and canvases of the requests in flight.

    The canvas is two arrays: token ids, and whether a position is still masked. A mask token in a prompt is
    just a token. ``grid`` above 0: blocks of so many tokens lie on a grid from position 0, and K/V are exact.
    Columns are int64 ``[slots]`` unless said otherwise; canvas arrays are ``[slots,
    max_model_len]``.
    """

    def __init__(
        self,
        slots: int,
        max_model_len: int,
        *,
        max_pages: int,
        page_size: int,
        mask_token_id: int,
        shift: int,
        grid: int = 0,
    ) -> None:
        self.slots, self.max_model_len, self.shift, self.grid = slots, max_model_len, shift, grid
        self.mask_token_id, self._page_size = mask_token_id, page_size
        self.prompt_len = np.zeros(slots, np.int64)
        self.sequence_len = np.zeros(slots, np.int64)
        self.block_start = np.zeros(slots, np.int64)
        self.block_end = np.zeros(slots, np.int64)
        self.block_length = np.zeros(slots, np.int64)
        self.limit = np.zeros(slots, np.int64)  # behind the last position that is published
        # Positions that the next step queries unless it refreshes, and those it may choose tokens for.
        self.first, self.until = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
        self.open_start, self.open_end = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
        # A step writes K/V of position p to entry p - ``origin`` of the pages, and reads ``keys`` entries.
        self.origin, self.keys = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
        # A refresh of the whole sequence keeps the best ``kept`` of what lies before ``context_end`` and
        # outside the block's window, and everything behind ``fixed`` tokens where there are any of these.
        self.kept, self.context_end = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
        self.fixed = np.zeros(slots, np.int64)
        self.packs = np.zeros(slots, bool)  # a refresh writes pages; not when nothing is read from them
        self.stop_token_ids = np.full((slots, MOST_STOP_TOKENS), -1, np.int64)  # -1 past a request's own
        self.stop_count = np.zeros(slots, np.int64)
        self.stops_from = np.zeros(slots, np.int64)  # position from which a stop token may be chosen
        self.scores = np.zeros(slots, bool)  # its masks are there to be scored, not filled
        self.is_guided = np.zeros(slots, bool)  # by a grammar, whose text begins at ``guided_from``
        self.guided_from = np.zeros(slots, np.int64)
        self.guided_to = np.zeros(slots, np.int64)  # steps that are on their way fill it in up to here
        self.matches: dict[int, GrammarMatch] = {}  # by slot, of these
        self.closed_from = np.full(slots, max_model_len, np.int64)  # no token is chosen from here on
        self.strategy = np.zeros(slots, np.int64)  # index into STRATEGIES
        self.value = np.zeros(slots, np.float32)
        # A step commits the so many most confident tokens, and all whose confidence reaches the threshold; it
        # replaces a token of the block where another's exceeds what editing takes.
        self.quota = np.ones(slots, np.int64)
        self.threshold = np.full(slots, np.inf, np.float32)
        self.edit_threshold = np.full(slots, np.inf, np.float32)
        self.confidence = np.zeros(slots, np.int64)  # index into CONFIDENCES, or BY_POSITION
        self.temperature = np.zeros(slots, np.float32)
        self.top_p = np.ones(slots, np.float32)
        self.top_k = np.zeros(slots, np.int64)
        self.is_filtered = np.zeros(slots, bool)  # draws from a part of the vocabulary
        self.alternatives = np.zeros(slots, np.int64)
        self.seed = np.zeros(slots, np.int64)
        self.step = np.zeros(slots, np.int64)  # forward passes so far
        self.retention_ratio = np.ones(slots, np.float64)
        # Pool slot of a request's j-th packed entry; past its pages the trash page's.
        self.pool_slots = np.zeros((slots, max_pages * page_size), np.int64)
        self.token_ids = np.zeros((slots, max_model_len), np.int64)
        self.is_masked = np.zeros((slots, max_model_len), bool)
        self.logprobs = np.zeros((slots, max_model_len), np.float32)

    def fill(self, slot: int, request: Request, pages: list[int]) -> None:
        """Set up ``slot`` for a request that starts; its canvas is the prompt and masks, or what it had
        committed before. Its first block is still to be started."""
        message = request.message
        prompt, end = len(message.prompt), request.sequence_tokens
        self.prompt_len[slot], self.sequence_len[slot] = prompt, end
        self.limit[slot] = prompt + message.max_tokens
        self.block_length[slot] = message.diffusion.block_length
        self.retention_ratio[slot] = message.diffusion.retention_ratio
        interval = message.diffusion.prompt_refresh_interval
        self.fixed[slot] = fixed_tokens(prompt, interval, self.shift)
        self.packs[slot] = message.diffusion.refresh_interval != 1 or self.fixed[slot] > 0
        self._fill_stops(slot, message)
        self._fill_rule(slot, request)
        self.temperature[slot], self.top_p[slot] = message.sampling.temperature, message.sampling.top_p
        self.top_k[slot] = min(message.sampling.top_k, np.iinfo(np.int64).max)
        is_part = message.sampling.top_p < 1 or message.sampling.top_k > 0
        self.is_filtered[slot] = is_part and message.sampling.temperature > 0
        self.alternatives[slot] = message.top_logprobs
        self.seed[slot] = (message.sampling.seed + 2**63) % 2**64 - 2**63  # the same 64 bits, signed
        self.step[slot] = 0
        self.pool_slots[slot] = 0
        self.put_pages(slot, 0, pages)
        self.token_ids[slot, :prompt] = message.prompt
        self.token_ids[slot, prompt:end] = self.mask_token_id
        self.is_masked[slot, :prompt] = False
        self.is_masked[slot, prompt:end] = True
        self.scores[slot] = request.score is not None
        self.let_go(slot)
        if request.match is not None and request.held_from is not None:
            self.hold(slot, request.held_from, request.match)
        if request.score is not None:
            self.token_ids[slot, request.score.masked_from : end] = self.mask_token_id
            self.token_ids[slot, request.score.scored] = np.array(message.prompt)[request.score.scored]
            self.is_masked[slot, request.score.scored] = True
        if (saved := request.saved) is not None:
            self.token_ids[slot, prompt:end] = saved.token_ids
            self.is_masked[slot, prompt:end] = saved.is_masked
            self.logprobs[slot, prompt:end] = saved.logprobs
            self.step[slot] = saved.steps

    def save(self, request: Request) -> Saved:
        """What ``fill`` needs to go on from here."""
        slot = request.slot
        generated = slice(int(self.prompt_len[slot]), int(self.sequence_len[slot]))
        return Saved(
            self.token_ids[slot, generated].copy(),
            self.is_masked[slot, generated].copy(),
            self.logprobs[slot, generated].copy(),
            int(self.block_start[slot]),
            int(self.step[slot]),
            (request.steps_in_block, request.post_edit_steps),
        )

    def clear(self, slot: int) -> None:
        """Nobody's any more."""
        self.matches.pop(slot, None)

    def hold(self, slot: int, start: int, match: GrammarMatch) -> None:
        """What follows from ``start`` on is held to the grammar of ``match``."""
        self.is_guided[slot], self.guided_from[slot], self.matches[slot] = True, start, match
        self.guided_to[slot] = start
        self.closed_from[slot] = self.max_model_len

    def let_go(self, slot: int) -> None:
        """What follows is held to no grammar."""
        self.is_guided[slot], self.closed_from[slot] = False, self.max_model_len
        self.matches.pop(slot, None)

    def first_committed(self, slot: int, start: int, end: int, token: int) -> int | None:
        """The first position from ``start`` to ``end`` where ``token`` is committed."""
        is_there = (self.token_ids[slot, start:end] == token) & ~self.is_masked[slot, start:end]
        return start + int(is_there.argmax()) if is_there.any() else None

    def take_back(self, slot: int, start: int, end: int) -> bool:
        """Mask what is committed from ``start`` to ``end``; whether anything was."""
        is_any = not self.is_masked[slot, start:end].all()
        self.token_ids[slot, start:end], self.is_masked[slot, start:end] = self.mask_token_id, True
        return is_any

    def put_pages(self, slot: int, first: int, pages: Sequence[int]) -> None:
        """``pages`` follow the ``first`` ones that the request has."""
        size = self._page_size
        entries = np.array(pages, np.int64)[:, None] * size + np.arange(size)
        self.pool_slots[slot, first * size : first * size + entries.size] = entries.reshape(-1)

    def _fill_rule(self, slot: int, request: Request) -> None:
        """How its tokens are chosen for a commit."""
        diffusion = request.message.diffusion
        self.strategy[slot] = STRATEGIES.index(diffusion.strategy)
        self.value[slot] = diffusion.value
        is_left_to_right = diffusion.strategy is Strategy.SEQUENTIAL
        self.confidence[slot] = BY_POSITION if is_left_to_right else CONFIDENCES.index(diffusion.confidence)
        self.quota[slot] = request.share
        has_threshold = diffusion.strategy in (Strategy.THRESHOLD, Strategy.JOINT_THRESHOLD)
        # Exact families commit what is above a threshold, the others what reaches it.
        reached = (
            np.nextafter(np.float32(diffusion.value), np.float32(np.inf)) if self.grid else diffusion.value
        )
        self.threshold[slot] = reached if has_threshold else np.inf

    def _fill_stops(self, slot: int, message: Generate) -> None:
        stops = message.stop_token_ids
        self.stop_token_ids[slot] = -1
        self.stop_token_ids[slot, : len(stops)] = stops
        self.stop_count[slot] = len(stops)
        self.stops_from[slot] = len(message.prompt) + message.min_tokens if stops else 0

    def start_block(self, slot: int, start: int) -> None:
        """The block from ``start`` on, whose steps read a part of its context that a refresh packs."""
        sequence, ratio = int(self.sequence_len[slot]), float(self.retention_ratio[slot])
        end = min(start + int(self.block_length[slot]), sequence)
        self.block_start[slot], self.block_end[slot] = start, end
        self.first[slot], self.until[slot] = start - self.shift, end
        self.open_start[slot], self.open_end[slot] = start, end
        if fixed := int(self.fixed[slot]):
            kept, first, last, context_end = kept_context_tokens(fixed, 0, ratio), fixed, sequence, fixed
        else:
            first, last, context_end = start - self.shift, end, sequence
            kept = min(kept_context_tokens(sequence, end - start, ratio), sequence - (end - first))
        self.kept[slot], self.context_end[slot] = kept, context_end
        self.origin[slot], self.keys[slot] = first - kept, kept + last - first

    def query(self, slot: int, rows: tuple[int, int], open_rows: tuple[int, int]) -> None:
        """The next step queries positions ``rows``, whose K/V lie in the order of the tokens, and may choose
        tokens for ``open_rows``."""
        self.first[slot], self.until[slot] = rows
        self.origin[slot], self.keys[slot] = 0, rows[1]
        self.open_start[slot], self.open_end[slot] = open_rows

    def window(self, slot: int) -> int:
        """Positions that a step queries which does not refresh."""
        return int(self.until[slot] - self.first[slot])

    def commit(
        self, slots: IntArray, starts: IntArray, tokens: NDArray[np.int32], logprobs: NDArray[np.float32]
    ) -> IntArray:
        """Write a step's commits to the positions from ``starts`` on, ``[requests, block]`` with -1 where
        there is none; returns how many tokens of each request they have replaced."""
        request, column = np.nonzero(tokens >= 0)
        slot = slots[request]
        position = starts[request] + column
        self.token_ids[slot, position] = tokens[request, column]
        self.logprobs[slot, position] = logprobs[request, column]
        replaced = np.bincount(request[~self.is_masked[slot, position]], minlength=len(slots))
        self.is_masked[slot, position] = False
        return replaced

    def block_state(
        self, slots: IntArray, starts: IntArray, lengths: IntArray
    ) -> tuple[IntArray, IntArray, IntArray]:
        """For each slot the masks left in the block at ``starts``, those of them that are to be published,
        and the position of a stop token with everything before it committed (or -1)."""
        column = np.arange(int(lengths.max(initial=1)))
        position = np.minimum(starts[:, None] + column, self.max_model_len - 1)
        in_block = column < lengths[:, None]
        masks_left = (self.is_masked[slots[:, None], position] & in_block).sum(axis=1)
        inside = in_block & (position < self.limit[slots][:, None])
        inside &= position >= self.prompt_len[slots][:, None]
        is_masked = self.is_masked[slots[:, None], position] & inside
        stops = self.stop_token_ids[slots, : int(self.stop_count[slots].max(initial=0))]
        tokens = self.token_ids[slots[:, None], position]
        is_stop = (tokens[:, :, None] == stops[:, None, :]).any(axis=2) & inside & ~is_masked
        first_mask = np.where(is_masked.any(axis=1), is_masked.argmax(axis=1), len(column))
        first_stop = np.where(is_stop.any(axis=1), is_stop.argmax(axis=1), len(column))
        ended_at = np.where(first_stop < first_mask, starts + first_stop, -1)
        return masks_left, is_masked.sum(axis=1), ended_at
