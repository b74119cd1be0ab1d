"""A batched reference decoder: full refresh or dual cache, any retention, one token a step or a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.forward import BLOCK_TOKENS, LayerCache, Layout, refresh, reuse, select
from training.model import MaskedDiffusionModel


@dataclass(frozen=True, slots=True)
class Mode:
    """`retention` None recomputes everything each step; `threshold` None commits one token a step."""

    name: str
    retention: float | None = None
    threshold: float | None = None
    is_shared: bool = False


MODES = (
    Mode("full"),
    Mode("dual", retention=1.0),
    Mode("keep 0.5", retention=0.5),
    Mode("keep 0.1", retention=0.1),
    Mode("keep 0.1 shared", retention=0.1, is_shared=True),
    Mode("full >0.9", threshold=0.9),
    Mode("dual >0.9", retention=1.0, threshold=0.9),
    Mode("keep 0.5 >0.9", retention=0.5, threshold=0.9),
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Tokens before the first end-of-text; until then `committed` tokens took `forwards` passes."""

    tokens: list[int]
    committed: int
    forwards: int


@torch.no_grad()
def decode(
    model: MaskedDiffusionModel,
    prompts: Sequence[Sequence[int]],
    canvas_tokens: int,
    mode: Mode,
    *,
    mask_token_id: int,
    eos_token_id: int,
    dtype: torch.dtype,
) -> list[Decoded]:
    """Greedy, block after block, lowest-confidence remasking. `canvas_tokens` is a multiple of the block."""
    device = model.cosines.device
    length = max(map(len, prompts)) + canvas_tokens
    canvas_start = length - canvas_tokens
    tokens = torch.full((len(prompts), length), eos_token_id, device=device)
    for row, prompt in enumerate(prompts):
        tokens[row, canvas_start - len(prompt) : canvas_start] = torch.tensor(prompt, device=device)
    first = torch.tensor([canvas_start - len(prompt) for prompt in prompts], device=device)
    is_masked = torch.zeros_like(tokens, dtype=torch.bool)
    is_masked[:, canvas_start:] = True
    forwards, committed = torch.zeros_like(first), torch.zeros_like(first)
    is_finished = torch.zeros_like(first, dtype=torch.bool)

    for block_start in range(canvas_start, length, BLOCK_TOKENS):
        layout = Layout.of(length, first, torch.full_like(first, block_start))
        block = slice(block_start, block_start + BLOCK_TOKENS)
        caches: list[LayerCache] = []
        kept: list[Tensor] = []
        while bool((is_masked[:, block].any(1) & ~is_finished).any()):
            shown = tokens.masked_fill(is_masked, mask_token_id)
            if mode.retention is None or not caches:
                hidden, caches = refresh(model, shown, layout, dtype)
                if mode.retention is not None:
                    retention = torch.full(first.shape, mode.retention, device=device)
                    kept = select(caches, layout, retention, is_shared=mode.is_shared)
            else:
                hidden = reuse(model, shown[:, block], layout, caches, kept, dtype)
            confidence, best = model.logits(hidden).softmax(-1).max(-1)
            chosen = _choose(confidence, is_masked[:, block], mode.threshold) & ~is_finished[:, None]
            forwards += (is_masked[:, block].any(1) & ~is_finished).long()
            committed += chosen.sum(1)
            tokens[:, block] = torch.where(chosen, best, tokens[:, block])
            is_masked[:, block] &= ~chosen
            ends = (tokens[:, canvas_start:] == eos_token_id) & ~is_masked[:, canvas_start:]
            is_open = is_masked[:, canvas_start:].long().cumsum(1) > 0
            is_finished |= (ends & ~is_open).any(1)
        if bool(is_finished.all()):
            break
    return [
        Decoded(_before(row, eos_token_id), int(count), int(steps))
        for row, count, steps in zip(tokens[:, canvas_start:].tolist(), committed, forwards, strict=True)
    ]


def _choose(confidence: Tensor, is_masked: Tensor, threshold: float | None) -> Tensor:
    confidence = confidence.masked_fill(~is_masked, -1.0)
    best = torch.zeros_like(is_masked).scatter(1, confidence.argmax(1, keepdim=True), True) & is_masked
    return best if threshold is None else best | (confidence >= threshold)


def _before(row: list[int], eos_token_id: int) -> list[int]:
    return row[: row.index(eos_token_id)] if eos_token_id in row else row
