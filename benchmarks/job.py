"""One request of a benchmark's load, as every system under test gets it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllm_server.engine.requests.messages import Diffusion, Generate, Sampling
from dllm_server.settings import DiffusionSettings, Strategy, UnmaskingSettings

BLOCK = 32


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt and the canvas asked for; every system decodes it in blocks at one quota."""

    prompt: list[int]
    max_tokens: int

    def request(
        self,
        request_id: str,
        quota: int,
        *,
        block: int = BLOCK,
        retention_ratio: float = 1.0,
        prompt_refresh_interval: int = 1,
        stop_token_ids: Sequence[int] = (),
    ) -> Generate:
        """For the engine: greedy, ``quota`` tokens a step, one refresh a block, of the prompt too in every
        so many of them."""
        settings = DiffusionSettings(
            block_length=block,
            unmasking=UnmaskingSettings(strategy=Strategy.QUOTA, value=quota),
            retention_ratio=retention_ratio,
            prompt_refresh_interval=prompt_refresh_interval,
        )
        return Generate(
            request_id,
            self.prompt,
            self.max_tokens,
            Sampling(),
            Diffusion.of(settings),
            stop_token_ids=list(stop_token_ids),
        )
