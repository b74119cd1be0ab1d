"""The engine's settings: model, device, memory, schedule and decoding defaults."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from dllm_server.settings.byte_size import MemorySize
from dllm_server.settings.decoding import (
    Confidence,
    DiffusionSettings,
    LikelihoodStart,
    Strategy,
    UnmaskingSettings,
)
from dllm_server.settings.live import LiveSettings

EMBEDDED_MODEL = "embedded"


class Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Dtype(StrEnum):
    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class KernelBackend(StrEnum):
    AUTO = "auto"
    TORCH = "torch"
    TRITON = "triton"


class LoadFormat(StrEnum):
    AUTO = "auto"
    DUMMY = "dummy"


class KvSelection(StrEnum):
    PER_HEAD = "per_head"
    SHARED = "shared"


class EngineSettings(LiveSettings):
    """The engine: model, device, memory, schedule and decoding defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        EMBEDDED_MODEL, description="Directory, hub id, or 'embedded' for the model in the package."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id.")
    served_model_name: str | None = Field(None, description="Name in the API; the model's own by default.")
    device: Device = Field(Device.AUTO, description="Where to run; auto takes CUDA when there is one.")
    dtype: Dtype = Field(
        Dtype.AUTO, description="Weights and activations; auto is bfloat16 on CUDA, float32 on CPU."
    )
    load_format: LoadFormat = Field(
        LoadFormat.AUTO, description="dummy fills random weights at the model's shapes."
    )
    kernel_backend: KernelBackend = Field(
        KernelBackend.AUTO, description="Operations of a step; auto is triton on CUDA, torch elsewhere."
    )
    cuda_graph_max_requests: int = Field(
        128,
        ge=0,
        le=4096,
        description="Reuse and denoising steps of up to so many requests, and up to 512 rows, replay a CUDA "
        "graph; 0 captures none. For triton.",
    )
    cuda_graph_max_refresh_tokens: int = Field(
        1024,
        ge=0,
        description="Refreshes of one request of up to so many tokens replay a CUDA graph; 0 captures none.",
    )
    max_model_len: int | None = Field(
        None, ge=1, description="Prompt + generated tokens; the model's own by default."
    )
    aging_steps: int = Field(
        16, ge=1, description="Steps after which a waiting phase goes before all younger ones."
    )
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="Share of the device's memory to use.")
    gpu_memory_limit: MemorySize | None = Field(
        None, description="Treat the device as having this much memory."
    )
    kv_pool_bytes: MemorySize | None = Field(
        None, description="Size of the KV pool; what the budget leaves by default."
    )
    page_size: int = Field(16, ge=1, le=256, description="K/V slots a page.")
    retention_ratio: float = Field(
        1.0, gt=0, le=1, description="Largest share of context K/V a request may keep."
    )
    kv_selection: KvSelection = Field(
        KvSelection.PER_HEAD, description="shared gives all heads one index set (for evaluation only)."
    )
    block_length: int = Field(32, ge=1, le=1024, description="Default tokens a block.")
    refresh_interval: int | None = Field(
        None, ge=1, description="Default steps between refreshes; once a block if unset."
    )
    prompt_refresh_interval: int = Field(
        1, ge=1, description="Default blocks from one refresh of the prompt to the next; 1: all recompute it."
    )
    refresh_window: int | None = Field(
        None,
        ge=0,
        description="Default masks behind the block that a refresh without the prompt recomputes; all if "
        "unset.",
    )
    unmasking_strategy: Strategy = Field(Strategy.THRESHOLD, description="Default commit strategy.")
    unmasking_value: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Default value of the commit strategy; if unset, quota and sequential 1, threshold 0.9, "
        "joint_threshold 0.95, factor 1, entropy_bound 0.1.",
    )
    confidence: Confidence = Field(Confidence.PROBABILITY, description="Default ranking of masked positions.")
    likelihood_start: LikelihoodStart = Field(
        1, description="Default first token of a prompt that is scored; from its end if negative."
    )
    likelihood_block_length: int = Field(
        1, ge=1, description="Default tokens scored together, by a bound; 1 is exact from left to right."
    )
    likelihood_samples: int = Field(
        128, ge=1, le=4096, description="Default forward passes for each block of several tokens scored."
    )
    tuning_file: Path | None = Field(None, description="Watched JSON file of live settings.")
    memory_window_seconds: float = Field(
        10.0,
        gt=0,
        allow_inf_nan=False,
        description="Length of the windows of peaks and load in /metrics; the last 12 are shown.",
    )

    @model_validator(mode="after")
    def _decoding_defaults_are_valid(self) -> Self:
        self.diffusion_defaults()
        return self

    def diffusion_defaults(self) -> DiffusionSettings:
        value = {} if self.unmasking_value is None else {"value": self.unmasking_value}
        return DiffusionSettings(
            block_length=self.block_length,
            refresh_interval=self.refresh_interval,
            prompt_refresh_interval=self.prompt_refresh_interval,
            refresh_window=self.refresh_window,
            unmasking=UnmaskingSettings(strategy=self.unmasking_strategy, **value),
            confidence=self.confidence,
            retention_ratio=self.retention_ratio,
            likelihood_start=self.likelihood_start,
            likelihood_block_length=self.likelihood_block_length,
            likelihood_samples=self.likelihood_samples,
        )

    def live_settings(self) -> LiveSettings:
        return LiveSettings(**{name: getattr(self, name) for name in LiveSettings.model_fields})
