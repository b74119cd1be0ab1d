"""Slow decoding loops of the block-causal families that are plainly right: one request, every step computes
the whole sequence up to the block's end again, nothing is stored.

Written from the families' published decoding code, not from the engine: only the transformer is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from dllm_server.models.transformer import Transformer
from torch import Tensor


@dataclass
class Decoded:
    """``canvas`` is all that was decided behind the prompt, ``tokens`` what of it is the answer."""

    canvas: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    stop_token: int | None = None
    forwards: int = 0  # of denoising
    prefills: int = 0
    commits: int = 0
    edits: int = 0
    post_steps: int = 0
    block_forwards: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class ExactPlan:
    """``steps`` share a block's positions out: as many are fixed in each step, or at least for a threshold.
    ``value`` is the strategy's; ``stops_inside`` ends a request as soon as all before an EOS is fixed."""

    block_length: int
    strategy: str  # quota, sequential, threshold, entropy_bound, joint_threshold
    value: float = 0.0
    steps: int | None = None
    edit_threshold: float = 1.0
    max_post_edit_steps: int = 0
    stops_inside: bool = False
    sub_block_length: int | None = None

    def share(self, step: int) -> int:
        steps = self.steps or self.block_length
        return self.block_length // steps + (step < self.block_length % steps)


class WholeAttention:
    """Every row of one sequence sees the blocks before its own and all of its own."""

    def __init__(self, model: Transformer, rows: int, block_length: int) -> None:
        config = model.config
        block = torch.arange(rows) // block_length
        self._sees = (block[None, :] <= block[:, None]).to(model.device)
        self._scale = config.head_dim**-0.5
        self._none = torch.empty(0, config.n_kv_heads, config.head_dim, device=model.device)

    @property
    def tail_slots(self) -> Tensor:
        return torch.empty(0, dtype=torch.int64, device=self._none.device)

    def pools(self, layer: int) -> tuple[Tensor, Tensor]:
        return self._none, self._none

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        group = q.shape[1] // k.shape[1]
        keys, values = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        scores = torch.einsum("qhd,khd->hqk", q, keys) * self._scale
        weights = scores.masked_fill(~self._sees, -math.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", weights, values).flatten(1)


@torch.inference_mode()
def logits_of(model: Transformer, tokens: list[int], block_length: int) -> Tensor:
    """``[tokens, vocabulary]``."""
    attention = WholeAttention(model, len(tokens), block_length)
    rows = torch.tensor(tokens, device=model.device), torch.arange(len(tokens), device=model.device)
    hidden = model.forward(*rows, attention)
    return hidden @ model.lm_head.T


def decode(model: Transformer, prompt: list[int], max_tokens: int, plan: ExactPlan) -> Decoded:
    """Answer as the model's family decodes."""
    if plan.sub_block_length is not None:
        return _decode_shifted(model, prompt, max_tokens, plan, plan.sub_block_length)
    length, mask = plan.block_length, model.config.mask_token_id
    result, canvas = Decoded(prefills=int(len(prompt) >= length)), list(prompt)
    for block in range(len(prompt) // length, math.ceil((len(prompt) + max_tokens) / length)):
        canvas += [mask] * ((block + 1) * length - len(canvas))
        fill = _edit_block if plan.strategy == "joint_threshold" else _fill_block
        is_over = fill(model, canvas, len(prompt), plan, result)
        result.commits += 1
        if is_over or _first_stop(model, canvas[len(prompt) :]) is not None:
            break
    return _finish(model, canvas[len(prompt) :], max_tokens, result)


def _fill_block(
    model: Transformer, canvas: list[int], prompt_tokens: int, plan: ExactPlan, result: Decoded
) -> bool:
    """Denoise the last block; whether an EOS ended the request inside it."""
    mask, step = model.config.mask_token_id, 0
    first = len(canvas) - plan.block_length
    result.block_forwards.append(0)
    while masked := [place for place in range(first, len(canvas)) if canvas[place] == mask]:
        logits = logits_of(model, canvas, plan.block_length)
        result.forwards += 1
        result.block_forwards[-1] += 1
        fixed = chosen(logits, masked, plan, step)
        for place in fixed:
            canvas[place] = int(logits[place].argmax())
        step += 1
        answer = canvas[prompt_tokens:]
        stop = _first_stop(model, answer)
        has_fixed_stop = any(canvas[place] in model.config.eos_token_ids for place in fixed)
        if plan.stops_inside and has_fixed_stop and stop is not None and mask not in answer[:stop]:
            return True
    return False


def chosen(logits: Tensor, masked: list[int], plan: ExactPlan, step: int) -> list[int]:
    """Which masked positions a step fixes."""
    share = plan.share(step)
    if plan.strategy == "sequential":
        return masked[:share]
    probabilities = logits[masked].softmax(-1)
    if plan.strategy == "entropy_bound":
        entropy = -(probabilities * probabilities.clamp_min(1e-45).log()).sum(-1)
        order = entropy.argsort().tolist()
        within = int((entropy.sort().values.cumsum(0) < plan.value).sum())
        return [masked[place] for place in order[: max(within, 1)]]
    confidence = probabilities.max(-1).values
    above = [place for place, value in zip(masked, confidence.tolist(), strict=True) if value > plan.value]
    if plan.strategy == "threshold" and len(above) >= share:
        return above
    return [masked[place] for place in confidence.argsort(descending=True).tolist()[:share]]


def _edit_block(
    model: Transformer, canvas: list[int], prompt_tokens: int, plan: ExactPlan, result: Decoded
) -> bool:
    """Fill the last block and edit what has been filled, until nothing changes or the budget is spent."""
    mask, first, post = model.config.mask_token_id, len(canvas) - plan.block_length, 0
    unseen = 0  # edits that no forward has read yet
    filling = replace(plan, strategy="threshold", steps=None)
    while True:
        masked = [place for place in range(first, len(canvas)) if canvas[place] == mask]
        if not masked:
            post += 1
            if post > plan.max_post_edit_steps:
                return False
        logits = logits_of(model, canvas, plan.block_length)
        result.edits, unseen = result.edits + unseen, 0
        result.forwards += 1
        result.post_steps += not masked
        best = logits.softmax(-1).max(-1)
        filled = chosen(logits, masked, filling, 0) if masked else []
        edited = [
            place
            for place in range(max(first, prompt_tokens), len(canvas))
            if place not in masked
            and float(best.values[place]) > plan.edit_threshold
            and int(best.indices[place]) != canvas[place]
        ]
        for place in [*filled, *edited]:
            canvas[place] = int(best.indices[place])
        unseen = len(edited)
        if not masked and not edited:
            return False


def _decode_shifted(
    model: Transformer, prompt: list[int], max_tokens: int, plan: ExactPlan, sub_block: int
) -> Decoded:
    """The token at a position is predicted by the logits of the one before it; a block's first token is known
    before its first step: from the prompt, or from the last logits of what came before."""
    length, mask = plan.block_length, model.config.mask_token_id
    result, canvas, end = Decoded(), list(prompt), len(prompt) + max_tokens
    if len(prompt) >= length:
        result.prefills = 1
        if len(prompt) % length == 0:
            canvas.append(int(logits_of(model, canvas, length)[-1].argmax()))
    while True:
        first = (len(canvas) - 1) // length * length
        canvas += [mask] * (first + length - len(canvas))
        known = max(first, len(prompt))
        needed = sum(1 for place in range(first, min(first + length, end)) if canvas[place] == mask)
        result.block_forwards += [0] * (needed > 0)
        for start in range(first, first + length, sub_block):
            while masked := [p for p in range(start, start + sub_block) if canvas[p] == mask]:
                if _is_over(model, canvas[known:]):
                    return _finish(model, canvas[len(prompt) :], max_tokens, result)
                logits = logits_of(model, canvas, length).roll(1, 0)
                for place in chosen(logits, masked, replace(plan, steps=None), 0):
                    canvas[place] = int(logits[place].argmax())
                if needed:
                    result.forwards += 1
                    result.block_forwards[-1] += 1
        if _is_over(model, canvas[known:]) or len(canvas) >= end:
            return _finish(model, canvas[len(prompt) :], max_tokens, result)
        result.commits += 1
        canvas.append(int(logits_of(model, canvas, length)[-1].argmax()))
        if canvas[-1] in model.config.eos_token_ids or len(canvas) >= end:
            return _finish(model, canvas[len(prompt) :], max_tokens, result)


def _is_over(model: Transformer, tokens: list[int]) -> bool:
    """Whether an EOS stands in ``tokens`` with no mask before it."""
    stop = _first_stop(model, tokens)
    return stop is not None and model.config.mask_token_id not in tokens[:stop]


def _first_stop(model: Transformer, tokens: list[int]) -> int | None:
    return next((n for n, token in enumerate(tokens) if token in model.config.eos_token_ids), None)


def _finish(model: Transformer, canvas: list[int], max_tokens: int, result: Decoded) -> Decoded:
    result.canvas, result.tokens = canvas, canvas[:max_tokens]
    stop = _first_stop(model, result.tokens)
    if stop is not None:
        result.stop_token, result.tokens = result.tokens[stop], result.tokens[:stop]
    return result
