"""The decoding modes an evaluation compares."""

from __future__ import annotations

from dataclasses import dataclass

from dllm_server.engine.requests.decoding import with_edits
from dllm_server.engine.requests.messages import BlockCausalInfo
from dllm_server.settings import DiffusionSettings, KvSelection, Strategy, UnmaskingSettings

_ONCE = 2**20  # more blocks than any answer has
_ONE_TOKEN = UnmaskingSettings(strategy=Strategy.QUOTA, value=1)


@dataclass(frozen=True, slots=True)
class Mode:
    name: str
    refresh_interval: int | None = None
    prompt_refresh_interval: int = 1
    refresh_window: int | None = None
    retention_ratio: float = 1.0
    unmasking: UnmaskingSettings = _ONE_TOKEN
    selection: KvSelection = KvSelection.PER_HEAD

    def diffusion(self, block_length: int) -> DiffusionSettings:
        return DiffusionSettings(
            block_length=block_length,
            refresh_interval=self.refresh_interval,
            prompt_refresh_interval=self.prompt_refresh_interval,
            refresh_window=self.refresh_window,
            unmasking=self.unmasking,
            retention_ratio=self.retention_ratio,
        )


MODES = (
    Mode("no-cache", refresh_interval=1),
    Mode("refresh-per-block"),
    Mode("prompt-every-2", prompt_refresh_interval=2),
    Mode("prompt-every-4", prompt_refresh_interval=4),
    Mode("prompt-every-8", prompt_refresh_interval=8),
    Mode("prompt-once", prompt_refresh_interval=_ONCE),
    Mode("prompt-every-8-retention-0.5", prompt_refresh_interval=8, retention_ratio=0.5),
    Mode("prompt-every-8-window-8", prompt_refresh_interval=8, refresh_window=8),
    Mode("prompt-every-8-window-0", prompt_refresh_interval=8, refresh_window=0),
    Mode("retention-0.5", retention_ratio=0.5),
    Mode("retention-0.25", retention_ratio=0.25),
    Mode("retention-0.1", retention_ratio=0.1),
    Mode("retention-0.1-shared", retention_ratio=0.1, selection=KvSelection.SHARED),
    Mode("threshold-0.9", unmasking=UnmaskingSettings(strategy=Strategy.THRESHOLD, value=0.9)),
)


@dataclass(frozen=True, slots=True)
class ExactMode:
    """Of a block-causal model: nothing but the commits differ. ``unmasking`` None is the model's own."""

    name: str
    unmasking: UnmaskingSettings | None = None
    selection: KvSelection = KvSelection.PER_HEAD

    def diffusion(self, own: DiffusionSettings, blocks: BlockCausalInfo | None) -> DiffusionSettings:
        unmasking = own.unmasking if self.unmasking is None else self.unmasking
        return with_edits(own.model_copy(update={"unmasking": unmasking}), blocks)


EXACT_MODES = (
    ExactMode("default"),
    ExactMode("quota-1", _ONE_TOKEN),
    ExactMode("quota-4", UnmaskingSettings(strategy=Strategy.QUOTA, value=4)),
    ExactMode("threshold-0.9", UnmaskingSettings(strategy=Strategy.THRESHOLD, value=0.9)),
)
