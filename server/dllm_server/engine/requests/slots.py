"""The host's table of admitted requests: one row a slot, so that a step's plan is built by array
operations."""

from __future__ import annotations

import numpy as np
from dllm_kernels.layout import IntArray
from numpy.typing import NDArray

from dllm_server.engine.requests.messages import MOST_STOP_TOKENS, Generate
from dllm_server.engine.requests.request import Request
from dllm_server.memory import kept_context_tokens
from dllm_server.settings import Confidence, Strategy

STRATEGIES = tuple(Strategy)
CONFIDENCES = tuple(Confidence)


class SlotTable:
    """Numbers and canvases of the requests in flight.

    The canvas is two arrays: token ids, and whether a position is still masked. A mask token in a prompt is
    just a token. Columns are int64 ``[slots]`` unless said otherwise; canvas arrays are ``[slots,
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
    ) -> None:
        self.slots, self.max_model_len, self.shift = slots, max_model_len, shift
        self.mask_token_id, self._page_size = mask_token_id, page_size
        self.prompt_len = np.zeros(slots, np.int64)
        self.sequence_len = np.zeros(slots, np.int64)
        self.block_start = np.zeros(slots, np.int64)
        self.block_end = np.zeros(slots, np.int64)
        self.block_length = np.zeros(slots, np.int64)
        self.kept = np.zeros(slots, np.int64)  # context slots of the current block
        self.packs = np.zeros(slots, bool)  # a refresh writes pages; not when every step refreshes
        self.stop_token_ids = np.full((slots, MOST_STOP_TOKENS), -1, np.int64)  # -1 past a request's own
        self.stop_count = np.zeros(slots, np.int64)
        self.stops_from = np.zeros(slots, np.int64)  # position from which a stop token may be chosen
        self.scores = np.zeros(slots, bool)  # its masks are there to be scored, not filled
        self.strategy = np.zeros(slots, np.int64)  # index into STRATEGIES
        self.value = np.zeros(slots, np.float32)
        self.confidence = np.zeros(slots, np.int64)  # index into CONFIDENCES
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
        """Set up ``slot`` for a request that starts; its canvas is the prompt and masks."""
        message = request.message
        prompt, end = len(message.prompt), request.sequence_tokens
        self.prompt_len[slot], self.sequence_len[slot] = prompt, end
        self.block_length[slot] = message.diffusion.block_length
        self.retention_ratio[slot] = message.diffusion.retention_ratio
        self.packs[slot] = message.diffusion.refresh_interval != 1
        self._fill_stops(slot, message)
        self.strategy[slot] = STRATEGIES.index(message.diffusion.strategy)
        self.value[slot] = message.diffusion.value
        self.confidence[slot] = CONFIDENCES.index(message.diffusion.confidence)
        self.temperature[slot], self.top_p[slot] = message.sampling.temperature, message.sampling.top_p
        self.top_k[slot] = min(message.sampling.top_k, np.iinfo(np.int64).max)
        is_part = message.sampling.top_p < 1 or message.sampling.top_k > 0
        self.is_filtered[slot] = is_part and message.sampling.temperature > 0
        self.alternatives[slot] = message.top_logprobs
        self.seed[slot] = (message.sampling.seed + 2**63) % 2**64 - 2**63  # the same 64 bits, signed
        self.step[slot] = 0
        entries = np.array(pages, np.int64)[:, None] * self._page_size + np.arange(self._page_size)
        self.pool_slots[slot] = 0
        self.pool_slots[slot, : entries.size] = entries.reshape(-1)
        self.token_ids[slot, :prompt] = message.prompt
        self.token_ids[slot, prompt:end] = self.mask_token_id
        self.is_masked[slot, :prompt] = False
        self.is_masked[slot, prompt:end] = True
        self.scores[slot] = request.score is not None
        if request.score is not None:
            self.token_ids[slot, request.score.masked_from : end] = self.mask_token_id
            self.token_ids[slot, request.score.scored] = np.array(message.prompt)[request.score.scored]
            self.is_masked[slot, request.score.scored] = True
        self.start_block(slot, min(prompt, end - 1))  # a step has a block, be it a prompt's last token

    def _fill_stops(self, slot: int, message: Generate) -> None:
        stops = message.stop_token_ids
        self.stop_token_ids[slot] = -1
        self.stop_token_ids[slot, : len(stops)] = stops
        self.stop_count[slot] = len(stops)
        self.stops_from[slot] = len(message.prompt) + message.min_tokens if stops else 0

    def start_block(self, slot: int, start: int) -> None:
        end = min(start + int(self.block_length[slot]), int(self.sequence_len[slot]))
        self.block_start[slot], self.block_end[slot] = start, end
        kept = kept_context_tokens(
            int(self.sequence_len[slot]), end - start, float(self.retention_ratio[slot])
        )
        self.kept[slot] = min(kept, int(self.sequence_len[slot]) - self.window(slot))

    def window(self, slot: int) -> int:
        """Positions a reuse step queries: the block, and the position before it where logits are shifted."""
        return int(self.block_end[slot] - self.block_start[slot]) + self.shift

    def commit(
        self, slots: IntArray, starts: IntArray, tokens: NDArray[np.int32], logprobs: NDArray[np.float32]
    ) -> int:
        """Write a step's commits to the blocks that begin at ``starts``, ``[requests, block]`` with -1 where
        there is none; returns how many."""
        request, column = np.nonzero(tokens >= 0)
        slot = slots[request]
        position = starts[request] + column
        self.token_ids[slot, position] = tokens[request, column]
        self.logprobs[slot, position] = logprobs[request, column]
        self.is_masked[slot, position] = False
        return len(request)

    def block_state(self, slots: IntArray, starts: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
        """For each slot the masks left in the block at ``starts``, and the position of a stop token with
        everything before it committed (or -1)."""
        column = np.arange(int(lengths.max(initial=1)))
        inside = column < lengths[:, None]
        position = np.minimum(starts[:, None] + column, self.max_model_len - 1)
        is_masked = self.is_masked[slots[:, None], position] & inside
        stops = self.stop_token_ids[slots, : int(self.stop_count[slots].max(initial=0))]
        tokens = self.token_ids[slots[:, None], position]
        is_stop = (tokens[:, :, None] == stops[:, None, :]).any(axis=2) & inside & ~is_masked
        first_mask = np.where(is_masked.any(axis=1), is_masked.argmax(axis=1), len(column))
        first_stop = np.where(is_stop.any(axis=1), is_stop.argmax(axis=1), len(column))
        return is_masked.sum(axis=1), np.where(first_stop < first_mask, starts + first_stop, -1)
