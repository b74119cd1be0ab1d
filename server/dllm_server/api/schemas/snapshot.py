"""The body of /snapshot: the server's state as one object."""

from __future__ import annotations

from pydantic import BaseModel, Field


class SnapshotServer(BaseModel):
    version: str
    model: str
    device: str
    dtype: str
    started_seconds: float = Field(description="Unix time at which the server began to serve.")
    now_seconds: float = Field(description="Unix time of this answer.")


class SnapshotRequests(BaseModel):
    running: int
    waiting: int
    most_running: int = Field(description="Requests in flight at most: max_num_seqs.")
    by_phase: dict[str, int] = Field(
        description="waiting, the two phases of the model's requests, and draining (in their last step)."
    )


class SnapshotMemory(BaseModel):
    device_bytes: int
    budget_bytes: int = Field(description="What the engine may use of it.")
    by_owner: dict[str, int] = Field(description="In the last step; free is the rest of the device.")
    peak_by_owner: dict[str, int] = Field(description="Largest of a step so far; of free the least.")
    predicted_by_owner: dict[str, int] = Field(
        description="As the memory model has it; free is of the budget."
    )


class SnapshotPages(BaseModel):
    used: int
    free: int
    prefix: int = Field(description="Of the free ones, those that hold prefixes.")
    page_size: int = Field(description="K/V slots of a page.")


class SnapshotPrefixCache(BaseModel):
    """Tokens since the server began, as in /metrics."""

    queried: int
    hit: int
    saved: int
    evicted: int


class SnapshotStep(BaseModel):
    number: int = Field(description="Counted from 1.")
    tokens: dict[str, int] = Field(description="Query tokens by phase.")
    requests: dict[str, int] = Field(description="Requests by phase.")
    token_budget: int
    committed_tokens: int
    seconds: float


class SnapshotSteps(BaseModel):
    token_budget: int = Field(description="Most query tokens of the next step.")
    total: dict[str, int] = Field(description="Steps so far by what their batch held.")
    tokens_total: dict[str, int] = Field(description="Query tokens so far by phase.")
    committed_tokens_total: int
    out_of_memory_total: int
    preemptions_total: int
    recent: list[SnapshotStep] = Field(description="The last steps, oldest first.")


class SnapshotTimes(BaseModel):
    """Percentiles in seconds, null before the first."""

    p50: float | None
    p95: float | None
    p99: float | None


class SnapshotLatency(BaseModel):
    """Of the last answers, 512 at most."""

    answers: int
    queue_seconds: SnapshotTimes
    first_block_seconds: SnapshotTimes
    end_to_end_seconds: SnapshotTimes


class SnapshotSetting(BaseModel):
    value: float
    floor: int | None = Field(description="What the requests in flight need at least.")
    ceiling: int | None = Field(description="Most that can be set while the others stay.")


class SnapshotChange(BaseModel):
    generation: int
    at_seconds: float = Field(description="Unix time.")
    settings: dict[str, tuple[float, float]] = Field(description="What changed: before and after.")


class SnapshotTuning(BaseModel):
    generation: int
    errors: int
    is_refused: bool = Field(description="Whether the newest tuning file is refused.")
    settings: dict[str, SnapshotSetting]
    changes: list[SnapshotChange] = Field(description="The last ones, oldest first.")


class Snapshot(BaseModel):
    """What the engine page shows and ``dllm top`` reads."""

    server: SnapshotServer
    is_sound: bool = Field(description="False once requests in a row came out as no numbers.")
    requests: SnapshotRequests
    memory: SnapshotMemory
    pages: SnapshotPages
    prefix_cache: SnapshotPrefixCache | None = Field(description="null where requests share no K/V.")
    steps: SnapshotSteps
    latency: SnapshotLatency
    tuning: SnapshotTuning
