"""How large a run is: everything in full, the same in short, or tiny shapes on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LLADA_8B: dict[str, Any] = {
    "architectures": ["LLaDAModelLM"],
    "d_model": 4096,
    "n_heads": 32,
    "n_kv_heads": 32,
    "n_layers": 32,
    "mlp_hidden_size": 12288,
    "vocab_size": 126464,
    "max_sequence_length": 4096,
    "rope_theta": 500000.0,
    "mask_token_id": 126336,
    "eos_token_id": 126081,
}
TOY = LLADA_8B | {
    "d_model": 64,
    "n_heads": 4,
    "n_kv_heads": 4,
    "n_layers": 2,
    "mlp_hidden_size": 128,
    "vocab_size": 512,
    "max_sequence_length": 256,
    "mask_token_id": 510,
    "eos_token_id": 511,
}


@dataclass(frozen=True, slots=True)
class Case:
    """``requests`` of one shape, all submitted at once, ``quota`` tokens a step."""

    requests: int
    quota: int
    retention_ratio: float


@dataclass(frozen=True, slots=True)
class PromptCase:
    """``requests`` of one shape, all submitted at once. ``least`` and ``goal``: how many times as many tokens
    a second come when the prompt is refreshed every eight blocks; 0 asks nothing."""

    prompt_tokens: int
    requests: int
    quota: int
    least: float = 0.0
    goal: float | None = None


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Seconds of load, arrivals at ``load_share`` of the measured saturation. Runs that are still busy
    ``drain_seconds`` after the last arrival are cut, and count their open requests' waits so far. So is the
    static batcher, which takes no batch after ``static_seconds``."""

    profiles: tuple[str, ...]
    quota: int
    load_seconds: float
    sweep_seconds: float
    drain_seconds: float
    static_seconds: float
    overload_seconds: float
    recovery_seconds: float
    saturation_requests: int
    sweep_shares: tuple[float, ...]
    has_bursts: bool
    load_share: float = 0.8
    overload_share: float = 1.5
    recovery_share: float = 0.5

    @property
    def processes(self) -> tuple[str, ...]:
        """Of the arrivals at ``load_share``."""
        return ("poisson", "bursty") if self.has_bursts else ("poisson",)


@dataclass(frozen=True, slots=True)
class Scale:
    """Prompt, generated and block tokens are those of facts measured elsewhere: 300, 256 and 32 at full size.

    ``static_blocks`` of the canvas are decoded by the static baseline; every block costs the same there.
    """

    name: str
    model: dict[str, Any]
    settings: dict[str, Any]
    prompt_tokens: int
    max_tokens: int
    block: int
    gemm_tokens: tuple[int, ...]
    cases: tuple[Case, ...]
    single_quotas: tuple[int, ...]
    static_batches: tuple[int, ...]
    static_blocks: int
    open_loop: OpenLoop
    idle_requests: int
    idle_steps: int
    memory_limit: str | None
    memory_seconds: float
    memory_short_seconds: float
    memory_requests: int
    memory_settings: dict[str, Any]
    agreement_modes: tuple[str, ...]
    prompt_cases: tuple[PromptCase, ...]
    prompt_settings: dict[str, Any]

    @property
    def is_tiny(self) -> bool:
        return self.name == "tiny"


_ON_GPU: dict[str, Any] = {
    "device": "cuda",
    "dtype": "bfloat16",
    "max_model_len": 2048,
    "max_num_batched_tokens": 4096,
    "max_num_seqs": 96,
    "block_length": 32,
    "retention_ratio": 1.0,
    "kv_pool_bytes": "28GiB",
}
_CAPPED: dict[str, Any] = {
    "max_model_len": 1024,
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 64,
    "kv_pool_bytes": None,
}
_PROMPTS = (
    PromptCase(3800, 16, 1, 2.5, 3.0),
    PromptCase(1700, 32, 1, 2.0),
    PromptCase(300, 64, 1, 1.15),
    PromptCase(300, 64, 4, 1.35),
)
_LONG: dict[str, Any] = {"max_model_len": 4096}
FULL = Scale(
    name="full",
    model=LLADA_8B,
    settings=_ON_GPU,
    prompt_tokens=300,
    max_tokens=256,
    block=32,
    gemm_tokens=(32, 64, 128, 256, 512, 1024, 2048, 4096),
    cases=(
        Case(32, 1, 0.5),
        Case(64, 1, 0.5),
        Case(96, 1, 0.5),
        Case(64, 1, 1.0),
        Case(96, 1, 1.0),
        Case(64, 4, 0.5),
        Case(96, 4, 0.5),
        Case(64, 4, 1.0),
        Case(96, 4, 1.0),
    ),
    single_quotas=(1, 4),
    static_batches=(8, 16, 32),
    static_blocks=2,
    open_loop=OpenLoop(
        profiles=("chat", "code", "summarise"),
        quota=4,
        load_seconds=20.0,
        sweep_seconds=12.0,
        drain_seconds=16.0,
        static_seconds=30.0,
        overload_seconds=30.0,
        recovery_seconds=30.0,
        saturation_requests=64,
        sweep_shares=(0.4, 1.1),
        has_bursts=True,
    ),
    idle_requests=64,
    idle_steps=24,
    memory_limit="24GiB",
    memory_seconds=180.0,
    memory_short_seconds=25.0,
    memory_requests=96,
    memory_settings=_CAPPED,
    agreement_modes=("refresh-per-block", "retention-0.5"),
    prompt_cases=_PROMPTS,
    prompt_settings=_LONG,
)
QUICK = Scale(
    name="quick",
    model=LLADA_8B,
    settings=_ON_GPU,
    prompt_tokens=300,
    max_tokens=256,
    block=32,
    gemm_tokens=(32, 256, 2048, 4096),
    cases=(Case(64, 1, 0.5), Case(64, 4, 0.5), Case(64, 4, 1.0)),
    single_quotas=(1, 4),
    static_batches=(16,),
    static_blocks=1,
    open_loop=OpenLoop(
        profiles=("chat",),
        quota=4,
        load_seconds=10.0,
        sweep_seconds=0.0,
        drain_seconds=6.0,
        static_seconds=14.0,
        overload_seconds=6.0,
        recovery_seconds=8.0,
        saturation_requests=64,
        sweep_shares=(),
        has_bursts=False,
    ),
    idle_requests=64,
    idle_steps=12,
    memory_limit="24GiB",
    memory_seconds=20.0,
    memory_short_seconds=8.0,
    memory_requests=96,
    memory_settings=_CAPPED,
    agreement_modes=("refresh-per-block",),
    prompt_cases=_PROMPTS,
    prompt_settings=_LONG,
)
TINY = Scale(
    name="tiny",
    model=TOY,
    settings={
        "device": "cpu",
        "dtype": "float32",
        "max_model_len": 128,
        "max_num_batched_tokens": 256,
        "max_num_seqs": 8,
        "max_num_logits": 64,
        "block_length": 8,
        "kv_pool_bytes": "8MiB",
        "retention_ratio": 1.0,
    },
    prompt_tokens=20,
    max_tokens=16,
    block=8,
    gemm_tokens=(4, 16),
    cases=(Case(6, 1, 0.5), Case(6, 4, 1.0)),
    single_quotas=(1, 4),
    static_batches=(2, 4),
    static_blocks=1,
    open_loop=OpenLoop(
        profiles=("tiny",),
        quota=4,
        load_seconds=0.4,
        sweep_seconds=0.3,
        drain_seconds=1.0,
        static_seconds=0.6,
        overload_seconds=0.3,
        recovery_seconds=0.6,
        saturation_requests=8,
        sweep_shares=(0.4,),
        has_bursts=True,
    ),
    idle_requests=4,
    idle_steps=4,
    memory_limit=None,
    memory_seconds=2.5,
    memory_short_seconds=0.3,
    memory_requests=8,
    memory_settings={"max_num_seqs": 64, "kv_pool_bytes": "256KiB"},
    agreement_modes=("refresh-per-block",),
    prompt_cases=(PromptCase(60, 3, 1),),
    prompt_settings={},
)
SCALES = {scale.name: scale for scale in (FULL, QUICK, TINY)}
