"""From settings to a running engine: resolve, load, measure, budget, allocate."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
from dllm_kernels.backend import Backend

from dllm_server.cause import Cause, Explanation
from dllm_server.engine.accounts.device_memory import DeviceMemory, open_device_memory
from dllm_server.engine.accounts.ledger import MemoryLedger
from dllm_server.engine.device.kernel_choice import pick_backend, pick_operations
from dllm_server.engine.device.kv_pool import KvPool
from dllm_server.engine.device.model_runner import ModelRunner
from dllm_server.engine.device.profiler import Profile, measure
from dllm_server.engine.device.rehearsal import rehearse
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.admission import Capacity
from dllm_server.engine.requests.messages import BlockCausalInfo, ModelInfo
from dllm_server.engine.requests.slots import SlotTable
from dllm_server.engine.schedule.course import RefreshReuse, TokenCost
from dllm_server.engine.schedule.exact import PrefillDenoise
from dllm_server.memory import (
    GIB,
    MOST_WHOLE_ROWS,
    RESERVE_BYTES_CPU,
    RESERVE_BYTES_CUDA,
    Budget,
    EngineLimits,
    ModelShape,
    plan_budget,
)
from dllm_server.models.config import ModelConfig
from dllm_server.models.loader import Progress, dummy_model, load_model, no_progress
from dllm_server.models.registry import open_checkpoint
from dllm_server.models.source import model_name, resolve_model
from dllm_server.models.transformer import Transformer
from dllm_server.settings import Device, Dtype, EngineSettings, KernelBackend, KvSelection, LoadFormat
from dllm_server.structure.grammars import Grammars
from dllm_server.structure.vocabulary import VocabularyFiles

log = structlog.get_logger(__name__)

RIDGE_TOKENS = 200  # whose product with a weight takes a GPU about as long as the weight's read
CPU_POOL_BYTES = 2 * GIB  # a CPU shares its memory with everything else


class DeviceError(ValueError):
    """The device that was asked for is not there."""

    def __init__(self, message: str, cause: Cause) -> None:
        super().__init__(message)
        self.why = Explanation(cause)


@dataclass(frozen=True, slots=True)
class StartedEngine:
    """An engine and what the outside wants to know of it."""

    engine: Engine
    model: ModelInfo
    ledger: MemoryLedger
    memory: DeviceMemory
    budget: Budget
    predicted: Budget
    profile: Profile


def pick_device(device: Device) -> torch.device:
    """``auto`` takes CUDA when there is one; asking for CUDA without one raises ``DeviceError``."""
    if device is Device.CUDA and not torch.cuda.is_available():
        raise _no_cuda_device()
    has_cuda = device is not Device.CPU and torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if has_cuda else torch.device("cpu")


def _no_cuda_device() -> DeviceError:
    asked = "device cuda was asked for, but"
    if torch.version.cuda is None:
        return DeviceError(
            f"{asked} PyTorch {torch.__version__} is built for CPUs: use an image built with DEVICE=cuda, or "
            "device cpu",
            Cause.CPU_IMAGE,
        )
    return DeviceError(
        f"{asked} PyTorch sees no CUDA device: check the driver and that the container is given a GPU, or "
        "use device cpu",
        Cause.NO_CUDA_DEVICE,
    )


def _is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def pick_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    match dtype:
        case Dtype.FLOAT32:
            return torch.float32
        case Dtype.BFLOAT16:
            return torch.bfloat16
        case Dtype.AUTO:
            return torch.bfloat16 if device.type == "cuda" else torch.float32


def engine_limits(settings: EngineSettings, trained_len: int, grid: int = 0) -> EngineLimits:
    """The length the model was trained on is the default, cut to what one step can refresh whole."""
    at_once = trained_len if grid else settings.max_num_batched_tokens
    longest = settings.max_model_len or min(trained_len, at_once)
    return EngineLimits(
        max_model_len=longest,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_num_seqs=settings.max_num_seqs,
        max_num_logits=settings.max_num_logits,
        block_length=grid or settings.block_length,
        retention_ratio=1.0 if grid else settings.retention_ratio,
        page_size=settings.page_size,
        grid=grid,
    )


def context_warning(shape: ModelShape, limits: EngineLimits) -> str | None:
    """What to say where config.json promises a longer context than the model was trained on."""
    trained, promised, served = shape.longest_trained, shape.max_model_len, limits.max_model_len
    if trained == promised:
        return None
    if served > trained:
        return (
            f"max_model_len {served} exceeds the {trained} tokens that this model was trained on: "
            "answers get worse past them"
        )
    return (
        f"config.json promises {promised} tokens, but this model was trained on {trained}: "
        f"{served} are served; --max-model-len raises it"
    )


def plan_for(
    settings: EngineSettings,
    shape: ModelShape,
    device_bytes: int,
    *,
    is_cpu: bool,
    measured: dict[str, int] | None = None,
) -> Budget:
    """The budget of these settings; ``measured`` replaces predictions (see ``memory.plan_budget``)."""
    limits = engine_limits(settings, shape.longest_trained, shape.grid)
    if measured is None and not is_cpu and settings.kernel_backend is not KernelBackend.TORCH:
        rows = min(limits.max_num_logits, MOST_WHOLE_ROWS)
        measured = {"logits_bytes": rows * shape.logits_bytes_per_row}
    return plan_budget(
        shape,
        device_bytes,
        settings.gpu_memory_utilization,
        limits,
        reserve_bytes=RESERVE_BYTES_CPU if is_cpu else RESERVE_BYTES_CUDA,
        kv_pool_bytes=settings.kv_pool_bytes,
        kv_pool_cap_bytes=CPU_POOL_BYTES if is_cpu else None,
        **(measured or {}),
    )


def start(
    settings: EngineSettings,
    *,
    progress: Progress = no_progress,
    clock: Callable[[], float] = time.monotonic,
) -> StartedEngine:
    """Everything up to the first request.

    Raises ``DeviceError``, ``ModelError`` and ``BudgetError`` with one clear line.
    """
    device = pick_device(settings.device)
    if settings.kernel_backend is KernelBackend.TRITON and device.type == "cpu" and not _is_interpreted():
        raise DeviceError(
            "kernel_backend triton needs a CUDA device: use auto or torch", Cause.TRITON_WITHOUT_CUDA
        )
    dtype = pick_dtype(settings.dtype, device)
    memory = open_device_memory(device, settings.gpu_memory_limit)
    directory = resolve_model(settings.model, settings.revision)
    checkpoint = open_checkpoint(directory)
    config = checkpoint.config
    name = model_name(settings.model, settings.served_model_name)
    shape = config.shape(name, dtype.itemsize)
    is_cpu = device.type == "cpu"
    predicted = plan_for(
        settings, shape, memory.total_bytes, is_cpu=is_cpu
    )  # refuses before minutes of loading
    if settings.load_format is LoadFormat.DUMMY:
        model = dummy_model(config, device, dtype)
    else:
        model = load_model(checkpoint, device, dtype, progress=progress)
    limits = engine_limits(settings, config.trained_len, config.grid)
    if (warning := context_warning(shape, limits)) is not None:
        log.warning(warning)
    backend = pick_backend(settings.kernel_backend, device, config.head_dim)
    model.operations = pick_operations(backend, model, limits)
    profile = measure(model, memory, limits)
    measured = {
        "weights_bytes": model.weights_bytes,
        "activations_bytes": profile.activations_bytes,
        "logits_bytes": profile.logits_bytes,
    }
    if is_cpu:  # resident memory that is used again hides a part of the peak
        for owner in ("activations_bytes", "logits_bytes"):
            measured[owner] = max(measured[owner], getattr(predicted, owner))
    budget = plan_for(settings, shape, memory.total_bytes, is_cpu=is_cpu, measured=measured)
    grammars = Grammars(_vocabulary_files(directory, config))
    engine = assemble(model, settings, limits, pages=budget.pages, grammars=grammars, clock=clock)
    engine.stats.oom["profile"] = profile.oom_events
    graphs_bytes = prepare(engine, settings, limits, backend) if not is_cpu else 0
    pool_bytes = engine.runner.pool.size_bytes
    ledger = MemoryLedger(
        memory,
        budget,
        weights_bytes=model.weights_bytes,
        pool_bytes=pool_bytes,
        graphs_bytes=graphs_bytes,
    )
    log.info(
        "engine ready",
        model=name,
        device=str(device),
        kernels=str(backend),
        kv_pages=budget.pages,
        measured=budget.owners(),
        predicted=predicted.owners(),
    )
    info = _model_info(settings, config, limits, name, str(directory), device, dtype)
    return StartedEngine(engine, info, ledger, memory, budget, predicted, profile)


def assemble(
    model: Transformer,
    settings: EngineSettings,
    limits: EngineLimits,
    *,
    pages: int,
    grammars: Grammars,
    clock: Callable[[], float] = time.monotonic,
) -> Engine:
    """Pool, table and runner around a loaded model."""
    config = model.config
    pool = KvPool.for_model(model, pages, limits.page_size)
    max_pages = (limits.canvas_tokens + config.shift) // limits.page_size + 1
    table = SlotTable(
        limits.max_num_seqs,
        limits.canvas_tokens,
        max_pages=max_pages,
        page_size=limits.page_size,
        mask_token_id=config.mask_token_id,
        shift=config.shift,
        grid=limits.grid,
    )
    course = (
        PrefillDenoise(
            table, pool.store, limits.page_size, token_cost(config.shape("", model.dtype.itemsize))
        )
        if limits.grid
        else RefreshReuse(table, pool.store)
    )
    runner = ModelRunner(model, pool, table, shares_indices=settings.kv_selection is KvSelection.SHARED)
    capacity = Capacity(
        limits.max_model_len,
        pages,
        limits.page_size,
        config.vocab_size,
        config.shift,
        config.mask_token_id,
        limits.grid,
    )
    return Engine(
        runner,
        course,
        capacity,
        grammars,
        settings.live_settings(),
        settings.aging_steps,
        clock,
        runs_ahead=model.device.type == "cuda",
    )


def _vocabulary_files(directory: Path, config: ModelConfig) -> VocabularyFiles:
    return VocabularyFiles(
        str(directory), config.vocab_size, list(config.eos_token_ids), config.mask_token_id
    )


def token_cost(shape: ModelShape) -> TokenCost:
    """By the arithmetic: attention makes half as much of a GPU as the products do."""
    by_product, by_key = 2 * shape.token_parameters, 4 * shape.n_layers * shape.n_heads * shape.head_dim
    free_tokens = RIDGE_TOKENS * shape.layer_parameters // shape.token_parameters
    return TokenCost(free_tokens, by_product / (2 * by_key))


def prepare(engine: Engine, settings: EngineSettings, limits: EngineLimits, backend: Backend) -> int:
    """Compile, and capture graphs, on a CUDA device; the bytes that the graphs reserve beyond those that
    count as allocated."""
    runner = engine.runner
    rehearse(runner.model, runner.pool, limits)
    requests = min(settings.cuda_graph_max_requests, limits.max_num_seqs)
    tokens = settings.cuda_graph_max_refresh_tokens
    if backend is Backend.TORCH or not (requests or tokens) or settings.kv_selection is KvSelection.SHARED:
        return 0
    before = _reserved_only()
    if limits.grid:  # a block, and the one before it whose K/V become final
        runner.capture(requests, 2 * limits.grid, 0)
    else:
        runner.capture(requests, limits.block_length + runner.model.config.shift, tokens)
    return max(_reserved_only() - before, 0)


def _reserved_only() -> int:
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def _model_info(
    settings: EngineSettings,
    config: ModelConfig,
    limits: EngineLimits,
    name: str,
    directory: str,
    device: torch.device,
    dtype: torch.dtype,
) -> ModelInfo:
    return ModelInfo(
        name=name,
        directory=directory,
        max_model_len=limits.max_model_len,
        max_request_tokens=limits.max_model_len,
        vocab_size=config.vocab_size,
        mask_token_id=config.mask_token_id,
        eos_token_ids=list(config.eos_token_ids),
        retention_ratio=settings.retention_ratio,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        blocks=_blocks_info(config),
    )


def _blocks_info(config: ModelConfig) -> BlockCausalInfo | None:
    blocks = config.block_causal
    if blocks is None:
        return None
    return BlockCausalInfo(
        blocks.block_length,
        blocks.decoding.strategy,
        blocks.decoding.value,
        blocks.decoding.edit_threshold,
        blocks.decoding.max_post_edit_steps,
        blocks.sub_block_length,
    )
