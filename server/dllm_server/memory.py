"""Model shape and device bytes -> a Budget: who owns which bytes. Pure arithmetic, no torch.

weights + KV pool + activations(max_num_batched_tokens) + logits(max_num_logits) + reserve <= device bytes x
utilization.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dllm_server.cause import Cause, Explanation

GIB = 1024**3
MIB = 1024**2

MOST_WHOLE_ROWS = 64  # rows whose logits exist whole at once, for those that need more than temperature
RESERVE_BYTES_CUDA = GIB  # context, cuBLAS workspaces, allocator fragmentation
RESERVE_BYTES_CPU = 256 * MIB


class BudgetError(ValueError):
    """The settings do not fit the device; the message names the owner and what to lower."""

    def __init__(self, cause: Cause, **numbers: int) -> None:
        self.why = Explanation(cause, numbers)
        super().__init__(str(self.why))


@dataclass(frozen=True, slots=True)
class RoutedShape:
    """Feed-forward layers of experts: how many layers are such, the experts of each, and an expert's width. A
    token takes ``chosen`` of those that are routed and all that are ``shared``."""

    layers: int
    experts: int
    chosen: int
    shared: int
    width: int
    has_bias: bool


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes that decide memory. ``head_dim * n_heads`` is the width of the queries; ``rotary_dim`` None
    turns whole heads. ``mlp_width`` is of the layers that are not routed."""

    name: str
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    mlp_width: int
    vocab_size: int
    max_model_len: int
    is_tied: bool
    has_qkv_bias: bool
    dtype_bytes: int
    trained_len: int | None = None  # longest sequence trained on, where that is less than ``max_model_len``
    grid: int = 0  # block length of a block-causal model
    has_head_norms: bool = False
    rotary_dim: int | None = None
    routed: RoutedShape | None = None

    @property
    def longest_trained(self) -> int:
        """The longest sequence that is served unless a setting says otherwise."""
        return self.max_model_len if self.trained_len is None else self.trained_len

    @property
    def parameters(self) -> int:
        bias = self.head_dim * (self.n_heads + 2 * self.n_kv_heads) if self.has_qkv_bias else 0
        norms = 2 * self.d_model + (2 * self.head_dim if self.has_head_norms else 0)
        embeddings = self.vocab_size * self.d_model * (1 if self.is_tied else 2)
        small = self.n_layers * (bias + norms) + self._bias_parameters + self.d_model
        return self.layer_parameters + small + embeddings

    @property
    def layer_parameters(self) -> int:
        """Weights of all of the layers' products."""
        attention = self.d_model * self.head_dim * (2 * self.n_heads + 2 * self.n_kv_heads)
        dense = self._dense_layers * 3 * self.d_model * self.mlp_width
        return self.n_layers * attention + dense + self._routed_parameters

    @property
    def token_parameters(self) -> int:
        """Those of them that one token takes part in."""
        if self.routed is None:
            return self.layer_parameters
        others = self.routed.experts - self.routed.chosen
        return self.layer_parameters - self.routed.layers * others * 3 * self.d_model * self.routed.width

    @property
    def weights_bytes(self) -> int:
        """With the router's biases and the tables of rotary angles, which are float32."""
        rotary_dim = self.head_dim if self.rotary_dim is None else self.rotary_dim
        angles = 2 * self.max_model_len * rotary_dim
        narrow = self.parameters - self._bias_parameters
        return narrow * self.dtype_bytes + 4 * (self._bias_parameters + angles)

    @property
    def _dense_layers(self) -> int:
        return self.n_layers - (self.routed.layers if self.routed else 0)

    @property
    def _routed_parameters(self) -> int:
        if self.routed is None:
            return 0
        router = self.routed.experts * self.d_model
        experts = (self.routed.experts + self.routed.shared) * 3 * self.d_model * self.routed.width
        return self.routed.layers * (router + experts)

    @property
    def _bias_parameters(self) -> int:
        return self.routed.layers * self.routed.experts if self.routed and self.routed.has_bias else 0

    @property
    def kv_bytes_per_slot(self) -> int:
        """K and V of one kept token over all layers and KV heads."""
        return 2 * self.n_layers * self.n_kv_heads * self.head_dim * self.dtype_bytes

    @property
    def activation_bytes_per_token(self) -> int:
        """Peak live bytes of a forward per query token: residual, norm and qkv, or residual, norm and the
        gated MLP, or that of the experts that a token takes, each with a row of its own, and their sum."""
        qkv = self.head_dim * (self.n_heads + 2 * self.n_kv_heads)
        attention = 2 * self.d_model + 2 * qkv + self.n_heads * self.head_dim
        rope_float32 = 4 * 3 * self.head_dim * self.n_heads
        peaks = [attention * self.dtype_bytes + rope_float32]
        if self._dense_layers:
            peaks.append((2 * self.d_model + 4 * self.mlp_width) * self.dtype_bytes)
        if self.routed is not None:
            taken = self.routed.chosen + self.routed.shared
            rows = taken * (2 * self.d_model + 3 * self.routed.width) + 2 * self.d_model
            peaks.append(rows * self.dtype_bytes + 4 * (taken * self.d_model + 4 * self.routed.experts))
        return max(peaks)

    @property
    def logits_bytes_per_row(self) -> int:
        """Float32 logits, their exponentials and one more temporary."""
        return 3 * 4 * self.vocab_size


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The settings a budget depends on."""

    max_model_len: int
    max_num_batched_tokens: int
    max_num_seqs: int
    max_num_logits: int
    block_length: int
    retention_ratio: float
    page_size: int
    grid: int = 0  # block length of a block-causal model

    @property
    def canvas_tokens(self) -> int:
        """The longest sequence, whose last block is whole where blocks lie on a grid."""
        return round_up(self.max_model_len, self.grid or 1)


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes by owner. ``pages`` counts usable pages; one more (the trash page) is part of
    ``kv_pool_bytes``. ``activation_bytes_per_token`` is measured where ``activations_bytes`` is."""

    device_bytes: int
    usable_bytes: int
    weights_bytes: int
    activations_bytes: int
    logits_bytes: int
    reserve_bytes: int
    kv_pool_bytes: int
    free_bytes: int
    page_bytes: int
    pages: int
    kv_bytes_per_token: float
    activation_bytes_per_token: int
    logits_bytes_per_row: int
    pages_per_full_request: int

    @property
    def full_requests(self) -> int:
        """Requests of the longest length that fit at once."""
        return self.pages // self.pages_per_full_request if self.pages_per_full_request else 0

    def owners(self) -> dict[str, int]:
        return {
            "weights": self.weights_bytes,
            "kv_pool": self.kv_pool_bytes,
            "activations": self.activations_bytes,
            "logits": self.logits_bytes,
            "other": self.reserve_bytes,
            "free": self.free_bytes,
        }


def round_up(tokens: int, step: int) -> int:
    """To a multiple of ``step``."""
    return -(-tokens // step) * step


def kept_context_tokens(sequence_tokens: int, block_tokens: int, retention_ratio: float) -> int:
    """``max(1, floor(r (N - B)))`` context keys a head keeps; 0 when the block is the whole sequence."""
    context = sequence_tokens - block_tokens
    # Rounding first keeps 0.1 * 30 at 3 where binary floats say 2.999...
    return min(context, max(1, math.floor(round(retention_ratio * context, 9)))) if context > 0 else 0


def lifetime_pages(
    prompt_tokens: int,
    max_tokens: int,
    block_length: int,
    retention_ratio: float,
    page_size: int,
    shift: int = 0,
) -> int:
    """Pages a request needs for its kept context and the block's own slots (one more if logits are shifted).

    The first block needs most: a shorter last one keeps at most as many context slots more as it is shorter.
    """
    block = min(block_length, max_tokens)
    kept = kept_context_tokens(prompt_tokens + max_tokens, block, retention_ratio)
    return math.ceil((kept + block + shift) / page_size)


def fixed_lifetime_pages(fixed_tokens: int, other_tokens: int, retention_ratio: float, page_size: int) -> int:
    """Pages of a request whose refreshes leave its first ``fixed_tokens`` out: what each head keeps of these,
    and all of the others."""
    kept = kept_context_tokens(fixed_tokens, 0, retention_ratio)
    return math.ceil((kept + other_tokens) / page_size)


def plan_budget(
    shape: ModelShape,
    device_bytes: int,
    utilization: float,
    limits: EngineLimits,
    *,
    reserve_bytes: int = RESERVE_BYTES_CUDA,
    kv_pool_bytes: int | None = None,
    kv_pool_cap_bytes: int | None = None,
    activations_bytes: int | None = None,
    logits_bytes: int | None = None,
    weights_bytes: int | None = None,
) -> Budget:
    """Divide the device; ``BudgetError`` names the owner that does not fit and the remedy.

    The pool gets ``kv_pool_bytes``, or what ``max_num_seqs`` of the longest requests can use up to
    ``kv_pool_cap_bytes``. ``activations_bytes``, ``logits_bytes`` and ``weights_bytes`` replace the model's
    predictions by measurements.
    """
    _check_limits(shape, limits)
    usable = int(device_bytes * utilization)
    per_token, per_row = shape.activation_bytes_per_token, shape.logits_bytes_per_row
    weights = shape.weights_bytes if weights_bytes is None else weights_bytes
    activations = (
        per_token * limits.max_num_batched_tokens if activations_bytes is None else activations_bytes
    )
    logits = per_row * limits.max_num_logits if logits_bytes is None else logits_bytes
    left = _claim(
        usable,
        (weights, Cause.WEIGHTS_TOO_LARGE),
        (reserve_bytes, Cause.RESERVE_TOO_LARGE),
        (activations, Cause.ACTIVATIONS_TOO_LARGE),
        (logits, Cause.LOGITS_TOO_LARGE),
    )
    page_bytes = shape.kv_bytes_per_slot * limits.page_size
    full = _pages_per_full_request(limits)
    if kv_pool_bytes is None:
        kv_pool_bytes = (full * limits.max_num_seqs + 1) * page_bytes  # more than this is never used
        kv_pool_bytes = kv_pool_bytes if kv_pool_cap_bytes is None else min(kv_pool_bytes, kv_pool_cap_bytes)
    pool = min(left, kv_pool_bytes) // page_bytes * page_bytes
    _check_pool(pool, (full + 1) * page_bytes, limits)
    return Budget(
        device_bytes=device_bytes,
        usable_bytes=usable,
        weights_bytes=weights,
        activations_bytes=activations,
        logits_bytes=logits,
        reserve_bytes=reserve_bytes,
        kv_pool_bytes=pool,
        free_bytes=left - pool,
        page_bytes=page_bytes,
        pages=pool // page_bytes - 1,
        kv_bytes_per_token=shape.kv_bytes_per_slot * limits.retention_ratio,
        activation_bytes_per_token=math.ceil(activations / limits.max_num_batched_tokens),
        logits_bytes_per_row=per_row,
        pages_per_full_request=full,
    )


def _claim(usable: int, *owners: tuple[int, Cause]) -> int:
    """What is left when each owner has taken its bytes, in order; the cause is of its having too few."""
    left = usable
    for needed, cause in owners:
        if needed > left:
            raise BudgetError(cause, needed_bytes=needed, left_bytes=left, usable_bytes=usable)
        left -= needed
    return left


def _pages_per_full_request(limits: EngineLimits) -> int:
    if limits.grid:
        return math.ceil(limits.canvas_tokens / limits.page_size)
    block = limits.block_length
    prompt = limits.max_model_len - block
    return lifetime_pages(prompt, block, block, limits.retention_ratio, limits.page_size, shift=1)


def _check_pool(pool_bytes: int, smallest_bytes: int, limits: EngineLimits) -> None:
    if pool_bytes < smallest_bytes:
        raise BudgetError(
            Cause.KV_POOL_TOO_SMALL,
            pool_bytes=pool_bytes,
            max_model_len=limits.max_model_len,
            needed_bytes=smallest_bytes,
        )


def _check_limits(shape: ModelShape, limits: EngineLimits) -> None:
    if limits.max_model_len > shape.max_model_len:
        raise BudgetError(Cause.MODEL_LEN, max_model_len=limits.max_model_len, longest=shape.max_model_len)
    if limits.grid:
        if limits.max_num_batched_tokens < 2 * limits.grid:
            raise BudgetError(
                Cause.TOKENS_BELOW_BLOCKS,
                max_num_batched_tokens=limits.max_num_batched_tokens,
                block_length=limits.grid,
            )
        return
    if limits.max_num_batched_tokens < limits.max_model_len:
        raise BudgetError(
            Cause.TOKENS_BELOW_LEN,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            max_model_len=limits.max_model_len,
        )
    if limits.block_length > limits.max_model_len:
        raise BudgetError(
            Cause.BLOCK_ABOVE_LEN, block_length=limits.block_length, max_model_len=limits.max_model_len
        )
