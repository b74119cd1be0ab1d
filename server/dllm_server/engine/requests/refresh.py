"""What the refreshes of a bidirectional model recompute: everything, or all but the prompt, whose K/V stay as
they were packed. Pure."""

from __future__ import annotations


def fixed_tokens(prompt_tokens: int, prompt_refresh_interval: int, shift: int) -> int:
    """Positions from 0 on whose K/V are kept from one block to another; 0 where every refresh recomputes all.

    Where logits are shifted the prompt's last token belongs to the first block's window and is not kept.
    """
    return max(prompt_tokens - shift, 0) if prompt_refresh_interval > 1 else 0


def takes_prompt(fixed: int, prompt_refresh_interval: int, block: int, step: int) -> bool:
    """Whether a refresh in step ``step`` of block number ``block``, both from 0, recomputes ``fixed``
    positions too: in the first step of every so many blocks."""
    return not fixed or (step == 0 and block % prompt_refresh_interval == 0)


def refresh_end(block_end: int, sequence_tokens: int, window: int | None) -> int:
    """Behind the last position that a refresh without the prompt recomputes: ``window`` masks behind the
    block, None for all of them."""
    return sequence_tokens if window is None else min(block_end + window, sequence_tokens)
