"""Every knob, once: CLI flags, ``DLLM_...`` environment, YAML files, JSON schema and the tuning file come
from these models.

Imports neither torch nor the engine, so that the operator and ``dllm --help`` stay light.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Self, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dllm_server.api_settings import ApiSettings as ApiSettings
from dllm_server.api_settings import UnknownParameters as UnknownParameters
from dllm_server.byte_size import MemorySize
from dllm_server.log_settings import LogSettings

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


class Strategy(StrEnum):
    """How many masked tokens a step commits; every strategy commits at least the most confident one."""

    QUOTA = "quota"
    SEQUENTIAL = "sequential"
    THRESHOLD = "threshold"
    JOINT_THRESHOLD = "joint_threshold"
    FACTOR = "factor"
    ENTROPY_BOUND = "entropy_bound"


class Confidence(StrEnum):
    """What ranks masked positions."""

    PROBABILITY = "probability"
    MARGIN = "margin"
    ENTROPY = "entropy"
    RANDOM = "random"


class KvSelection(StrEnum):
    PER_HEAD = "per_head"
    SHARED = "shared"


_DEFAULT_VALUES: Mapping[Strategy, float] = MappingProxyType(
    {
        Strategy.QUOTA: 1.0,
        Strategy.SEQUENTIAL: 1.0,
        Strategy.THRESHOLD: 0.9,
        Strategy.JOINT_THRESHOLD: 0.95,
        Strategy.FACTOR: 1.0,
        Strategy.ENTROPY_BOUND: 0.1,
    }
)


def _default_value(unmasking: Mapping[str, Any]) -> float:
    """The value of a strategy that is given without one. A strategy that is none has been refused already."""
    return _DEFAULT_VALUES[unmasking.get("strategy", Strategy.THRESHOLD)]


class UnmaskingSettings(BaseModel):
    """Which masked tokens of the block are committed in a step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: Strategy = Field(Strategy.THRESHOLD, description="How many tokens a step commits.")
    value: float = Field(
        default_factory=_default_value,
        gt=0,
        allow_inf_nan=False,
        description="quota, sequential: tokens a step (a whole number, 1 if unset); threshold: confidence in "
        "(0, 1], 0.9 if unset; joint_threshold: the same, 0.95 if unset; factor: f > 0, 1 if unset; "
        "entropy_bound: summed entropy in nats, 0.1 if unset.",
    )

    @model_validator(mode="after")
    def _value_fits_the_strategy(self) -> Self:
        is_count = self.strategy in (Strategy.QUOTA, Strategy.SEQUENTIAL)
        if is_count and (self.value < 1 or self.value != int(self.value)):
            raise ValueError(
                f"value {self.value} is not a whole number of tokens a step: {self.strategy} needs 1, 2, ..."
            )
        if self.strategy in (Strategy.THRESHOLD, Strategy.JOINT_THRESHOLD) and self.value > 1:
            raise ValueError(f"value {self.value} exceeds 1: a threshold is a confidence in (0, 1]")
        return self


def _not_zero(start: int) -> int:
    if start == 0:
        raise ValueError("nothing stands before token 0 to score it by: use 1 or more, or less than 0")
    return start


LikelihoodStart = Annotated[int, AfterValidator(_not_zero)]


class DiffusionSettings(BaseModel):
    """How a canvas is denoised. Each field can be given per request; the server's values are the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block_length: int = Field(
        32, ge=1, le=1024, description="Tokens denoised together; blocks go left to right."
    )
    refresh_interval: int | None = Field(
        None,
        ge=1,
        description="Steps between refreshes inside a block; null refreshes once a block, 1 every step.",
    )
    unmasking: UnmaskingSettings = Field(default_factory=UnmaskingSettings, description="Commit strategy.")
    confidence: Confidence = Field(Confidence.PROBABILITY, description="What ranks masked positions.")
    retention_ratio: float = Field(
        1.0, gt=0, le=1, description="Share of context K/V each head keeps for reuse; 1 keeps all."
    )
    steps_per_block: int | None = Field(
        None,
        ge=1,
        description="Steps that share a block's tokens out evenly, the rest to the first ones: so many quota "
        "and sequential commit, in the place of their value, and the others at least.",
    )
    edit_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="joint_threshold: confidence above which another token replaces one of the block.",
    )
    max_post_edit_steps: int | None = Field(
        None,
        ge=0,
        le=1024,
        description="joint_threshold: steps that only edit, at most, before a block is done.",
    )
    sub_block_length: int | None = Field(
        None, ge=1, le=1024, description="Tokens of a block that are denoised together, from left to right."
    )
    likelihood_start: LikelihoodStart = Field(
        1, description="First token of a prompt that is scored; from its end if negative."
    )
    likelihood_block_length: int = Field(
        1,
        ge=1,
        description="Tokens scored together, by a bound; 1 is exact from left to right, one that reaches the "
        "end takes all from likelihood_start on.",
    )
    likelihood_samples: int = Field(
        128, ge=1, le=4096, description="Forward passes for each block of several tokens that is scored."
    )

    @model_validator(mode="after")
    def _strategy_understands_the_confidence(self) -> Self:
        needs_probability = self.unmasking.strategy in (
            Strategy.THRESHOLD,
            Strategy.JOINT_THRESHOLD,
            Strategy.FACTOR,
        )
        if needs_probability and self.confidence is Confidence.ENTROPY:
            raise ValueError(
                f"confidence 'entropy' is not in [0, 1], which strategy '{self.unmasking.strategy}' needs: "
                "use strategy 'entropy_bound' or 'quota', or confidence 'probability' or 'margin'"
            )
        return self


class LiveSettings(BaseModel):
    """What may change while serving; the watched tuning file holds these fields and a generation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_num_batched_tokens: int = Field(4096, ge=1, description="Query tokens of a step (the token budget).")
    max_num_seqs: int = Field(64, ge=1, le=4096, description="Requests in flight.")
    max_num_logits: int = Field(2048, ge=1, description="Rows projected to the vocabulary at once.")
    refresh_share: float = Field(
        0.5, gt=0, le=1, description="Share of the token budget that refreshes may take while requests reuse."
    )
    admission_watermark: float = Field(
        0.0, ge=0, lt=1, description="Share of the KV pages kept free when admitting, unless nothing runs."
    )


class TuningFile(BaseModel):
    """Content of the tuning file: a generation and the live settings it changes (absent ones keep their
    start value). A checksum, where there is one, must be that of the other fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generation: int = Field(0, ge=0, description="Grows with each change; reported once applied.")
    checksum: str | None = Field(None, description="SHA-256 of the other fields, see ``checksum_of``.")
    max_num_batched_tokens: int | None = Field(None, ge=1)
    max_num_seqs: int | None = Field(None, ge=1, le=4096)
    max_num_logits: int | None = Field(None, ge=1)
    refresh_share: float | None = Field(None, gt=0, le=1)
    admission_watermark: float | None = Field(None, ge=0, lt=1)

    @staticmethod
    def checksum_of(document: Mapping[str, Any]) -> str:
        """Hex SHA-256 of the document without its checksum, as JSON with sorted keys, no spaces and ASCII
        only."""
        rest = {name: value for name, value in document.items() if name != "checksum"}
        canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @model_validator(mode="before")
    @classmethod
    def _checksum_is_that_of_the_rest(cls, document: Any) -> Any:
        if isinstance(document, dict) and document.get("checksum") is not None:
            expected = cls.checksum_of(document)
            if document["checksum"] != expected:
                raise ValueError(
                    f"checksum {document['checksum']} is not that of the content, {expected}: "
                    "write the file with its generator"
                )
        return document

    def apply_to(self, start: LiveSettings) -> LiveSettings:
        changes = self.model_dump(exclude={"generation", "checksum"}, exclude_none=True)
        return LiveSettings.model_validate(start.model_dump() | changes)


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
        16,
        ge=0,
        le=4096,
        description="Reuse steps of up to so many requests replay a CUDA graph; 0 captures none. For triton.",
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
            unmasking=UnmaskingSettings(strategy=self.unmasking_strategy, **value),
            confidence=self.confidence,
            retention_ratio=self.retention_ratio,
            likelihood_start=self.likelihood_start,
            likelihood_block_length=self.likelihood_block_length,
            likelihood_samples=self.likelihood_samples,
        )

    def live_settings(self) -> LiveSettings:
        return LiveSettings(**{name: getattr(self, name) for name in LiveSettings.model_fields})


class ServeSettings(BaseSettings, EngineSettings, ApiSettings, LogSettings):
    """All of ``dllm serve``: flags over ``DLLM_...`` environment over the YAML file over defaults."""

    model_config = SettingsConfigDict(env_prefix="DLLM_", extra="forbid", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings

    @classmethod
    def load(cls, flags: dict[str, Any], config_file: Path | None = None) -> Self:
        """Merge flags, environment and file; unknown keys and bad values raise ``ValueError`` naming them."""
        from_file = read_yaml_mapping(config_file) if config_file is not None else {}
        unknown = sorted(set(from_file) - set(cls.model_fields))
        if unknown:
            raise ValueError(f"{config_file}: unknown setting {', '.join(unknown)}")
        prefix = str(cls.model_config.get("env_prefix", ""))
        from_file = {name: value for name, value in from_file.items() if not _in_environment(prefix + name)}
        return cls(**(from_file | flags))

    def engine(self) -> EngineSettings:
        return EngineSettings(**{name: getattr(self, name) for name in EngineSettings.model_fields})

    def logs(self) -> LogSettings:
        return LogSettings(**{name: getattr(self, name) for name in LogSettings.model_fields})

    def api(self) -> ApiSettings:
        return ApiSettings(**{name: getattr(self, name) for name in ApiSettings.model_fields})


def rule_of(name: str) -> str:
    """What values a setting takes, in words."""
    field = ServeSettings.model_fields[name]
    kind: Any = field.annotation
    while (parts := get_args(kind)) and get_origin(kind) is not tuple:
        kind = next(part for part in parts if part is not NoneType)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return f"one of {', '.join(kind)}"
    if name.endswith("_bytes") or name == "gpu_memory_limit":
        return "a size in bytes such as 4GiB"
    limits = {
        word: getattr(limit, symbol)
        for symbol, word in _LIMITS.items()
        for limit in field.metadata
        if getattr(limit, symbol, None) is not None
    }
    what = {int: "a whole number", float: "a number"}.get(kind, "what the documentation of the settings says")
    return " ".join([what, *(f"{word} {limit:g}" for word, limit in limits.items())])


_LIMITS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The top-level mapping of a YAML file; ``ValueError`` names the file when it is missing or something
    else."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not settings (name: value)")
    return {str(name).replace("-", "_"): value for name, value in content.items()}


def _in_environment(name: str) -> bool:
    return any(key.upper() == name.upper() for key in os.environ)
