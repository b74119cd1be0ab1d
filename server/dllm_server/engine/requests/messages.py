"""Messages between the API process and the engine process: msgspec structs, tagged by type, encoded as
msgpack.

The API sends ``Generate``, ``Score``, ``Cancel`` and ``Shutdown``; the engine answers with the others. One
``Generate`` or ``Score`` ends with exactly one ``Finished``, ``Scored`` or ``Failed``, also after ``Cancel``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

import msgspec

from dllm_server.cause import Cause
from dllm_server.settings import Confidence, DiffusionSettings, Strategy
from dllm_server.structure.grammar import Grammar
from dllm_server.structure.vocabulary import VocabularyFiles
from dllm_server.termination import TerminationReason

MOST_STOP_TOKENS = 64
MOST_ALTERNATIVES = 20


class FinishReason(StrEnum):
    STOP = "stop"  # a stop token was committed with everything before it
    LENGTH = "length"  # the canvas is full
    CANCELLED = "cancelled"


class FailureReason(StrEnum):
    """Why a request got no answer; the API turns each into a status and an OpenAI error."""

    TOO_LARGE = "too_large"  # can never fit: 400
    OUT_OF_MEMORY = "out_of_memory"  # contained CUDA OOM at the floor: 503
    GRAMMAR = "grammar"  # cannot be followed, or no further: 400
    NOT_FINITE = "not_finite"  # the model computed a NaN or an infinity: 500
    ENGINE_ERROR = "engine_error"  # 500
    SHUTTING_DOWN = "shutting_down"  # 503


class Sampling(msgspec.Struct, frozen=True):
    """How tokens are chosen; ``temperature`` 0 is greedy, ``top_p`` 1 and ``top_k`` 0 keep the whole
    vocabulary."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0


class Diffusion(msgspec.Struct, frozen=True):
    """Decoding settings of one request, checked by ``settings.DiffusionSettings``."""

    block_length: int
    refresh_interval: int | None
    strategy: Strategy
    value: float
    confidence: Confidence
    retention_ratio: float
    steps_per_block: int | None = None
    edit_threshold: float | None = None
    max_post_edit_steps: int = 0
    sub_block_length: int | None = None
    prompt_refresh_interval: int = 1
    refresh_window: int | None = None

    @classmethod
    def of(cls, settings: DiffusionSettings) -> Self:
        """Checked settings as a message."""
        return cls(
            block_length=settings.block_length,
            refresh_interval=settings.refresh_interval,
            strategy=settings.unmasking.strategy,
            value=settings.unmasking.value,
            confidence=settings.confidence,
            retention_ratio=settings.retention_ratio,
            steps_per_block=settings.steps_per_block,
            edit_threshold=settings.edit_threshold,
            max_post_edit_steps=settings.max_post_edit_steps or 0,
            sub_block_length=settings.sub_block_length,
            prompt_refresh_interval=settings.prompt_refresh_interval,
            refresh_window=settings.refresh_window,
        )


class Generate(msgspec.Struct, frozen=True, tag=True):
    """Any of ``stop_token_ids`` (at most ``MOST_STOP_TOKENS``, EOS among them where it is to end the request)
    ends it once everything before it is committed; neither it nor what follows is published. None of them is
    chosen, or takes probability, at the first ``min_tokens`` positions. ``top_logprobs`` (at most
    ``MOST_ALTERNATIVES``) asks for the most likely tokens of every position. Only requests of the same
    ``cache_salt`` share prefixes. ``wants_confidence``: canvas updates tell it of each position. The text
    follows the ``grammar``, and ends where that allows nothing more; with ``grammar_after`` it is free, but
    for what follows each of these tokens until a text of the grammar is whole."""

    request_id: str
    prompt: list[int]
    max_tokens: int
    sampling: Sampling
    diffusion: Diffusion
    stop_token_ids: list[int] = []
    min_tokens: int = 0
    top_logprobs: int = 0
    wants_canvas: bool = False
    cache_salt: str = ""
    wants_confidence: bool = False
    grammar: Grammar | None = None
    grammar_after: int | None = None


class Score(msgspec.Struct, frozen=True, tag=True):
    """How likely are the tokens at the positions ``scored`` (ascending), with these masked and everything
    from position ``masked_from`` on masked too? One forward pass over ``tokens`` answers, with ``Scored``."""

    request_id: str
    tokens: list[int]
    scored: list[int]
    masked_from: int
    top_logprobs: int = 0


class Cancel(msgspec.Struct, frozen=True, tag=True):
    request_id: str


class Shutdown(msgspec.Struct, frozen=True, tag=True):
    """Finish nothing more: the engine process ends. Draining is the API's job."""


class RequestTimes(msgspec.Struct, frozen=True):
    """Seconds of the machine's monotonic clock. ``opened``: the end of the first refresh of the block that is
    told or, of a block-causal model, of the last prefill before it; ``told``: the result of the last step."""

    admitted_seconds: float = 0.0
    opened_seconds: float = 0.0
    told_seconds: float = 0.0


class RequestStats(msgspec.Struct, frozen=True):
    """Cumulative counts of one request up to the message that carries them. ``refresh_passes`` and
    ``prefill_passes`` are the forward passes in that phase, ``cached_tokens`` those of the prompt whose K/V
    were there when it was first admitted."""

    forward_passes: int = 0
    refresh_passes: int = 0
    queue_seconds: float = 0.0
    prefill_passes: int = 0
    cached_tokens: int = 0
    times: RequestTimes = RequestTimes()

    def plus(self, other: RequestStats) -> RequestStats:
        return RequestStats(
            self.forward_passes + other.forward_passes,
            self.refresh_passes + other.refresh_passes,
            self.queue_seconds + other.queue_seconds,
            self.prefill_passes + other.prefill_passes,
            self.cached_tokens + other.cached_tokens,
            other.times,
        )


class BlockCommitted(msgspec.Struct, frozen=True, tag=True):
    """The next tokens of a request, in order; a block's tokens come together, cut before a stop token.

    ``logprobs`` holds the log confidence of each token under the clean logits of the step that committed it,
    ``top_logprobs`` the most likely tokens there with theirs, the likeliest first; empty unless asked for.
    """

    request_id: str
    token_ids: list[int]
    logprobs: list[float]
    stats: RequestStats
    top_logprobs: list[list[tuple[int, float]]] = []


class CanvasUpdate(msgspec.Struct, frozen=True, tag=True):
    """The current block of a request that asked for it, after a step in ``phase``; a masked position is -1.

    ``confidence``, empty unless asked for, is a token's probability under the clean logits of the step that
    committed it, and of a masked position that of the token which this step would have put there; None where
    it computed none.
    """

    request_id: str
    block_start: int  # in generated tokens
    token_ids: list[int]
    forward_passes: int
    phase: str = ""
    confidence: list[float | None] = []


class StopToken(msgspec.Struct, frozen=True):
    """The stop token that ended a request, said as ``BlockCommitted`` says tokens."""

    token_id: int
    logprob: float
    top_logprobs: list[tuple[int, float]] = []


class Finished(msgspec.Struct, frozen=True, tag=True):
    request_id: str
    reason: FinishReason
    stats: RequestStats
    stop: StopToken | None = None  # with reason STOP


class Scored(msgspec.Struct, frozen=True, tag=True):
    """For each position of ``Score.scored`` the log probability of its token, and the most likely tokens
    there, the likeliest first; empty unless asked for."""

    request_id: str
    logprobs: list[float]
    stats: RequestStats
    top_logprobs: list[list[tuple[int, float]]] = []


class Failed(msgspec.Struct, frozen=True, tag=True):
    request_id: str
    reason: FailureReason
    message: str
    stats: RequestStats = RequestStats()


class BlockCausalInfo(msgspec.Struct, frozen=True):
    """Of a model whose blocks see what comes before them and themselves: their length, and how requests are
    decoded that do not say. ``sub_block_length`` None: its blocks have no sub-blocks."""

    block_length: int
    strategy: Strategy
    value: float
    edit_threshold: float | None
    max_post_edit_steps: int | None
    sub_block_length: int | None


class ModelInfo(msgspec.Struct, frozen=True):
    """What the API must know of the model to validate and tokenise."""

    name: str
    directory: str  # local directory with the tokenizer files
    max_model_len: int
    max_request_tokens: int  # prompt + max_tokens that can ever be admitted
    vocab_size: int
    mask_token_id: int
    eos_token_ids: list[int]  # any of them ends a text or a turn
    retention_ratio: float
    device: str
    dtype: str
    blocks: BlockCausalInfo | None = None

    @property
    def vocabulary_files(self) -> VocabularyFiles:
        """What grammars need to know of it."""
        return VocabularyFiles(self.directory, self.vocab_size, self.eos_token_ids, self.mask_token_id)


class Ready(msgspec.Struct, frozen=True, tag=True):
    model: ModelInfo


class StartFailed(msgspec.Struct, frozen=True, tag=True):
    """The engine could not start; the process ends after this. ``message`` is for the log, the cause and its
    numbers are for whoever may not read that."""

    reason: TerminationReason
    message: str
    cause: Cause
    numbers: dict[str, int] = {}


class StepHistogram(msgspec.Struct, frozen=True):
    """Cumulative counts by upper bound in seconds (the last is +Inf), as Prometheus wants them."""

    bounds: list[float]
    counts: list[int]
    total_seconds: float


class StepSums(msgspec.Struct, frozen=True):
    """Sums over steps of T tokens and s seconds. Differences of two readings fit ``s = t0 + T / rate`` by
    least squares exactly, for the steps between them."""

    steps: int = 0
    tokens: int = 0  # sum T
    seconds: float = 0.0  # sum s
    token_seconds: float = 0.0  # sum T * s
    squared_tokens: int = 0  # sum T * T

    def plus(self, tokens: int, seconds: float) -> StepSums:
        return StepSums(
            self.steps + 1,
            self.tokens + tokens,
            self.seconds + seconds,
            self.token_seconds + tokens * seconds,
            self.squared_tokens + tokens * tokens,
        )


class Window(msgspec.Struct, frozen=True):
    """A stretch of time that is over. ``peak_bytes`` by owner, ``peak_step_tokens`` and
    ``peak_step_logits_rows`` belong to the one step that held most; without a step they are what was held, 0
    and 0. A step that ran out of memory counts in ``oom`` only."""

    number: int
    start_seconds: float  # Unix time, as the end
    end_seconds: float
    generation: int  # of the tuning in force all the time, -1 when it changed
    peak_bytes: dict[str, int]
    peak_step_tokens: int
    peak_step_logits_rows: int
    steps: int
    tokens: int
    step_requests: int  # requests of the steps, each as often as it took part
    committed_tokens: int
    oom: int
    most_waiting: int
    most_running: int
    least_free_pages: int
    least_step_tokens: int
    tight_steps: int  # from which the token budget kept a request out
    mean_batch_fill: float


class StepSample(msgspec.Struct, frozen=True):
    """One step: its query tokens and requests by phase, of a budget of so many tokens."""

    number: int  # counted from 1
    tokens: dict[str, int]
    requests: dict[str, int]
    token_budget: int
    committed_tokens: int
    seconds: float


class TuningChange(msgspec.Struct, frozen=True):
    """A tuning file that was applied, and the settings that it changed: before and after."""

    generation: int
    at_seconds: float  # Unix time
    settings: dict[str, tuple[float, float]]


class EngineSnapshot(msgspec.Struct, frozen=True, tag=True):
    """The engine's state for /metrics and /snapshot, sent a few times a second; counters are cumulative since
    the process began."""

    requests_running: int
    requests_waiting: int
    tokens_total: dict[str, int]  # phase (refresh, reuse; prefill, denoise) -> query tokens
    steps_total: dict[str, int]  # phase | mixed -> steps
    committed_tokens_total: int
    step_seconds: dict[str, StepHistogram]  # the same keys as steps_total
    batch_fill: float  # last step's query tokens / token budget
    token_budget: int
    max_num_seqs: int
    max_num_logits: int
    max_model_len: int
    kv_pages: dict[str, int]  # free | used
    prefix_pages: int  # of the free ones, those that hold prefixes
    prefix_tokens_total: dict[str, int]  # queried | hit | saved | evicted -> tokens
    preemptions_total: int
    page_size: int
    memory_bytes: dict[str, int]  # owner -> bytes
    memory_peak_bytes: dict[str, int]
    memory_predicted_bytes: dict[str, int]
    device_memory_bytes: int
    oom_total: dict[str, int]  # phase | mixed | profile
    cancelled_total: int
    refused_total: int
    not_finite_total: int
    is_sound: bool  # False once requests in a row came out as no numbers
    tuning_generation: int
    tuning_errors_total: int
    is_tuning_refused: bool  # the newest file
    live: dict[str, float]  # live setting -> value in force
    floors: dict[str, int]  # live setting -> what the requests in flight need at least
    ceilings: dict[str, int]  # live setting -> most that can be set now
    step_sums: dict[str, StepSums]  # the same keys as steps_total
    step_sums_left_out: dict[str, int]  # warm_up | outlier
    windows: list[Window]  # oldest first
    requests_by_phase: dict[str, int] = {}
    recent_steps: list[StepSample] = []  # oldest first
    tuning_changes: list[TuningChange] = []  # oldest first


ToEngine = Generate | Score | Cancel | Shutdown
FromEngine = Ready | StartFailed | BlockCommitted | CanvasUpdate | Finished | Scored | Failed | EngineSnapshot
