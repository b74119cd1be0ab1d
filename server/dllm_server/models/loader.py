"""Fill a transformer from safetensors shards, one tensor at a time, or with random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dllm_server.cause import Cause
from dllm_server.models.config import ModelConfig
from dllm_server.models.files import ModelError, shard_files
from dllm_server.models.registry import Checkpoint
from dllm_server.models.transformer import Target, Transformer

Progress = Callable[[int, int], None]
"""Called with the bytes loaded so far and in all."""

_DUMMY_STD = 0.02
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def no_progress(loaded: int, total: int) -> None:
    """Report nothing."""


def load_model(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, *, progress: Progress = no_progress
) -> Transformer:
    """Stream a checkpoint to ``device``; the host never holds more than one tensor beyond the mapped file.

    Raises ``ModelError`` naming the file and the tensor when something is missing, truncated, of another
    shape, not finite, or of no use: a weight that nothing reads means that this is another model.
    """
    directory, config = checkpoint.directory, checkpoint.config
    targets = checkpoint.family.weight_targets(config)
    shards = shard_files(directory)
    model = Transformer(config, device, dtype)
    total = sum(path.stat().st_size for path in shards)
    missing = dict(targets)
    loaded = 0
    for path in shards:
        _load_shard(path, checkpoint, targets, missing, model)
        loaded += path.stat().st_size
        progress(loaded, total)
    if missing:
        names = sorted(missing)
        raise ModelError(
            f"{directory}: {len(names)} weights are in no shard, the first is {names[0]}", Cause.NO_WEIGHTS
        )
    return model


def dummy_model(config: ModelConfig, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Transformer:
    """Random normal weights (std 0.02, norms 1), the same for a seed and device type."""
    model = Transformer(config, device, dtype)
    generator = torch.Generator(device).manual_seed(seed)
    for name, tensor in model.weights.items():
        if name.endswith("norm"):
            tensor.fill_(1.0)
        else:
            tensor.normal_(0.0, _DUMMY_STD, generator=generator)
    return model


def _load_shard(
    path: Path,
    checkpoint: Checkpoint,
    targets: Mapping[str, Target],
    missing: dict[str, Target],
    model: Transformer,
) -> None:
    """Copy a shard's weights, and take them out of ``missing``."""
    filled: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt", device="cpu") as shard:
            names = sorted(shard.keys())
            for name in names:
                if name not in targets:
                    _check_unused(path, checkpoint, name)
                elif name not in missing:
                    raise ModelError(f"{path}: {name} is in another shard too: download the checkpoint again")
            for name in names:
                if name in targets:
                    filled[name] = model.slice_of(missing.pop(name))
                    _copy(path, name, shard.get_tensor(name), filled[name])
    except SafetensorError as error:
        raise ModelError(f"{path}: truncated or not a safetensors file: {error}", Cause.NO_WEIGHTS) from error
    except OSError as error:
        raise ModelError(f"{path}: {error}") from error
    _check_finite(path, filled)


def _check_unused(path: Path, checkpoint: Checkpoint, name: str) -> None:
    try:
        checkpoint.family.check_unused(checkpoint.config, name)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _copy(path: Path, name: str, source: Tensor, destination: Tensor) -> None:
    if source.shape != destination.shape:
        raise ModelError(
            f"{path}: {name} has shape {list(source.shape)}, config.json asks for {list(destination.shape)}"
        )
    if source.dtype not in _DTYPES:
        raise ModelError(
            f"{path}: {name} is {str(source.dtype).removeprefix('torch.')}, only plain weights are read "
            "(float32, float16, bfloat16)"
        )
    destination.copy_(source)


def _check_finite(path: Path, weights: dict[str, Tensor]) -> None:
    """Refuse a NaN or an infinity, also one that the conversion to the model's dtype made. One pass where the
    weights lie, and one copy of its results a shard."""
    if not weights:
        return
    # Both extremes of a tensor are NaN where it holds one.
    extremes = [torch.stack(tensor.aminmax()) for tensor in weights.values()]
    is_finite = torch.stack(extremes).isfinite().all(dim=1).cpu()
    for name, is_good in zip(weights, is_finite.tolist(), strict=True):
        if not is_good:
            dtype = str(weights[name].dtype).removeprefix("torch.")
            raise ModelError(
                f"{path}: {name} holds a NaN or an infinity in {dtype}: download the file again; if it is "
                "the same then, serve another checkpoint"
            )
