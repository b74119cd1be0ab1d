"""Every knob of ``dllm bench``: a flag, and a ``DLLM_BENCH_...`` variable."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dllm_server.load.duration import Seconds
from dllm_server.load.endpoint import Api
from dllm_server.load.lengths import PROFILES
from dllm_server.load.objective import Objective

DEFAULT_SECONDS = 30.0
DEFAULT_CLIENTS = 4

Profile = StrEnum("Profile", {name: name for name in PROFILES})  # type: ignore[misc]


class BenchSettings(BaseSettings):
    """Open loop with ``rate`` or ``trace``, closed loop with ``clients``; 4 clients where none is given."""

    model_config = SettingsConfigDict(env_prefix="DLLM_BENCH_", extra="forbid", frozen=True)

    rate: float | None = Field(
        None, gt=0, le=1e6, description="Open loop: requests a second. With --sweep the first rate tried."
    )
    burst_shape: float = Field(
        1.0,
        gt=0.01,
        le=100,
        description="Gamma shape of the gaps between arrivals: 1 is Poisson, 0.25 bursts.",
    )
    trace: Path | None = Field(
        None,
        description="Open loop: times and lengths of a CSV or JSONL file (seconds, prompt_tokens, "
        "max_tokens; also Mooncake's, BurstGPT's and Azure's columns).",
    )
    trace_speed: float = Field(1.0, gt=0, description="How many times as fast as the trace.")
    clients: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Closed loop: clients, each with one request at a time; 4 if nothing says how.",
    )
    sweep: bool = Field(False, description="Find the rate at which --objective breaks.")
    sweep_share: float = Field(
        0.99, gt=0, le=1, description="Share of the requests that must be good for a rate to hold."
    )
    sweep_tolerance: float = Field(0.05, gt=0, le=1, description="How close the answer must be, as a share.")
    duration: Seconds | None = Field(
        None,
        gt=0,
        description="How long requests are sent, of a sweep each try: 90s, 5m; 30s unless --requests says "
        "when to end.",
    )
    requests: int | None = Field(None, ge=1, description="Most requests.")
    against: str | None = Field(
        None, description="A second endpoint, given the same load in turns; its figures are shown as ratios."
    )
    rounds: int = Field(
        4, ge=1, le=1000, description="Turns of each endpoint with --against, which share the load."
    )
    api: Api = Field(Api.CHAT, description="Endpoint: /v1/chat/completions or /v1/completions.")
    model: str | None = Field(None, description="Model; the one of /v1/models if there is only one.")
    against_model: str | None = Field(None, description="The second endpoint's model.")
    api_key: SecretStr | None = Field(
        None, description="Bearer key. DLLM_BENCH_API_KEY hides it from those who may list processes."
    )
    against_api_key: SecretStr | None = Field(None, description="The second endpoint's key.")
    profile: Profile = Field(Profile.chat, description="Lengths of prompts and answers.")  # type: ignore[attr-defined]
    prompt_tokens: int | None = Field(
        None, ge=1, description="Length of every prompt instead of a profile's."
    )
    prompts: Path | None = Field(
        None,
        description="Real prompts instead of random words: a text file's lines, or a JSONL file of prompt or "
        "messages, and max_tokens.",
    )
    max_tokens: int | None = Field(None, ge=1, description="Longest answer, whatever profile or file say.")
    ignore_eos: bool = Field(False, description="Ask for answers of full length (ours, vLLM, SGLang).")
    body: Annotated[dict[str, Any], NoDecode] = Field(
        {}, description="JSON object put over each request's fields; null takes one out."
    )
    objective: Annotated[Objective | None, NoDecode] = Field(
        None,
        description="Longest waits of a good request: first=2s,gap=500ms,end=10s (first block, pauses "
        "between blocks, end to end).",
    )
    warmup: int = Field(2, ge=0, description="Requests before the load that count for nothing.")
    timeout: Seconds = Field(600.0, gt=0, description="A request still open then has failed.")
    metrics: str | None = Field(
        None, description="Addresses of the server's metrics, with commas between; URL/metrics if unset."
    )
    against_metrics: str | None = Field(None, description="The same of the second endpoint.")
    seed: int = Field(0, description="Of arrivals, lengths and words.")

    @field_validator("objective", mode="before")
    @classmethod
    def _parse_objective(cls, value: object) -> object:
        return Objective.parse(value) if isinstance(value, str) else value

    @field_validator("body", mode="before")
    @classmethod
    def _parse_body(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_one_load(self) -> Self:
        loads = {"rate": self.rate, "trace": self.trace, "clients": self.clients}
        given = [f"--{name}" for name, value in loads.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are different loads: give one of them")
        if self.sweep and self.objective is None:
            raise ValueError("--sweep needs an --objective, such as first=2s,end=10s")
        if self.sweep and (self.trace is not None or self.clients is not None):
            raise ValueError(f"--sweep tries rates, and {given[0]} has none: give a first --rate, or nothing")
        if self.sweep and self.against is not None:
            raise ValueError("--sweep is of one endpoint: run it for each, then --against at one rate")
        return self

    @property
    def is_open(self) -> bool:
        return self.rate is not None or self.trace is not None or self.sweep

    @property
    def seconds(self) -> float:
        """How long requests are sent; endless where their number or a trace ends it."""
        if self.duration is not None:
            return self.duration
        return DEFAULT_SECONDS if self.requests is None and self.trace is None else float("inf")
