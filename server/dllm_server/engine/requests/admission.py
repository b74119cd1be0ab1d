"""What can ever be admitted, and what it takes: pure checks of a request against the engine's sizes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from dllm_server.engine.requests.messages import MOST_ALTERNATIVES, MOST_STOP_TOKENS, Generate, Score
from dllm_server.engine.requests.refresh import fixed_tokens
from dllm_server.memory import fixed_lifetime_pages, lifetime_pages, round_up


@dataclass(frozen=True, slots=True)
class Capacity:
    """The sizes of an engine. ``shift`` is 1 where logits are shifted (Dream). With a ``grid`` K/V are exact:
    blocks of so many tokens lie on it from position 0."""

    max_model_len: int
    pages: int
    page_size: int
    vocab_size: int
    shift: int
    mask_token_id: int
    grid: int = 0

    def pages_for(self, message: Generate) -> int:
        """Pages of a request's whole life."""
        if self.grid:
            tokens = round_up(len(message.prompt) + message.max_tokens, self.grid)
            return round_up(tokens, self.page_size) // self.page_size
        prompt, diffusion = len(message.prompt), message.diffusion
        if fixed := fixed_tokens(prompt, diffusion.prompt_refresh_interval, self.shift):
            others = prompt + message.max_tokens - fixed
            return fixed_lifetime_pages(fixed, others, diffusion.retention_ratio, self.page_size)
        if diffusion.refresh_interval == 1:
            return 0  # every step refreshes: nothing is ever read from pages
        return lifetime_pages(
            prompt,
            message.max_tokens,
            diffusion.block_length,
            diffusion.retention_ratio,
            self.page_size,
            self.shift,
        )

    def refusal(self, message: Generate) -> str | None:
        """Why a request can never be served, or None."""
        total = len(message.prompt) + message.max_tokens
        if not message.prompt:
            return "the prompt is empty: send at least one token"
        if message.max_tokens < 1:
            return f"max_tokens {message.max_tokens} is below 1"
        if min(message.prompt) < 0 or max(message.prompt) >= self.vocab_size:
            return f"the prompt holds a token id outside the vocabulary of {self.vocab_size}"
        if total > self.max_model_len:
            return f"prompt and max_tokens are {total} tokens, the longest served is {self.max_model_len}"
        if problem := self._choice_refusal(message):
            return problem
        pages = self.pages_for(message)
        if pages > self.pages:
            return f"the request needs {pages} K/V pages, the pool has {self.pages}: lower max_tokens"
        return None

    def score_refusal(self, message: Score) -> str | None:
        """Why a text can never be scored so, or None."""
        tokens, scored = message.tokens, message.scored
        if self.grid:
            return "texts of block-causal models are not scored"
        if not tokens:
            return "the text is empty: send at least one token"
        if min(tokens) < 0 or max(tokens) >= self.vocab_size:
            return f"the text holds a token id outside the vocabulary of {self.vocab_size}"
        if len(tokens) > self.max_model_len:
            return f"the text has {len(tokens)} tokens, the longest served is {self.max_model_len}"
        if not scored or any(after <= before for before, after in pairwise(scored)):
            return "positions to score are not an ascending list of at least one"
        if scored[0] < self.shift or scored[-1] >= len(tokens):
            return f"a position to score is outside {self.shift} to {len(tokens) - 1}"
        if any(tokens[position] == self.mask_token_id for position in scored):
            return f"the text holds the mask token {self.mask_token_id} where it is to be scored"
        if not 0 <= message.top_logprobs <= MOST_ALTERNATIVES:
            return f"top_logprobs {message.top_logprobs} is outside 0 to {MOST_ALTERNATIVES}"
        return None

    def _choice_refusal(self, message: Generate) -> str | None:
        """Why tokens cannot be chosen as the request asks."""
        stops, alternatives = message.stop_token_ids, message.top_logprobs
        if len(stops) > MOST_STOP_TOKENS:
            return f"{len(stops)} stop_token_ids exceed {MOST_STOP_TOKENS}: send fewer"
        if stops and (min(stops) < 0 or max(stops) >= self.vocab_size):
            return f"stop_token_ids hold a token id outside the vocabulary of {self.vocab_size}"
        if message.min_tokens > 0 and len(set(stops)) + 1 >= self.vocab_size:  # one is the mask token
            return f"{len(set(stops))} stop_token_ids leave no other token for min_tokens: send fewer"
        if not 0 <= alternatives <= MOST_ALTERNATIVES:
            return f"top_logprobs {alternatives} is outside 0 to {MOST_ALTERNATIVES}"
        return None
