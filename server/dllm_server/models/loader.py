"""Fill a transformer from safetensors shards, one tensor at a time, or with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from dllm_server.models.config import ModelConfig, ModelError, read_config_json
from dllm_server.models.registry import find_family
from dllm_server.models.transformer import Target, Transformer

Progress = Callable[[int, int], None]
"""Called with the bytes loaded so far and in all."""

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_DUMMY_STD = 0.02
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def no_progress(loaded: int, total: int) -> None:
    """Report nothing."""


def load_model(
    directory: Path, device: torch.device, dtype: torch.dtype, *, progress: Progress = no_progress
) -> Transformer:
    """Stream a checkpoint directory to ``device``; the host never holds more than one tensor beyond the
    mapped file.

    Raises ``ModelError`` naming the file and the tensor when something is missing, truncated or of another
    shape.
    """
    family, config = find_family(read_config_json(directory))
    targets = family.weight_targets(config)
    shards = shard_files(directory)
    model = Transformer(config, device, dtype)
    total = sum(path.stat().st_size for path in shards)
    missing = dict(targets)
    loaded = 0
    for path in shards:
        _load_shard(path, targets, model, missing)
        loaded += path.stat().st_size
        progress(loaded, total)
    if missing:
        names = sorted(missing)
        raise ModelError(f"{directory}: {len(names)} weights are in no shard, the first is {names[0]}")
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


def shard_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint: those its index names, or the single file."""
    index = directory / _INDEX
    if not index.exists():
        single = directory / _SINGLE
        if not single.exists():
            raise ModelError(f"{directory}: holds neither {_SINGLE} nor {_INDEX}; only safetensors are read")
        return [single]
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        names = sorted(set(weight_map.values()))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index}: not a safetensors index: {error}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (directory / name).is_file():
            raise ModelError(f"{directory}: shard {name} is named by {_INDEX} but is not there")
    return [directory / name for name in names]


def _load_shard(
    path: Path, targets: Mapping[str, Target], model: Transformer, missing: dict[str, Target]
) -> None:
    try:
        with safe_open(path, framework="pt", device="cpu") as shard:
            for name in shard.keys():  # noqa: SIM118 - not a mapping
                if name in targets:
                    _copy(path, name, shard.get_tensor(name), model.slice_of(targets[name]))
                    missing.pop(name, None)
    except SafetensorError as error:
        raise ModelError(f"{path}: truncated or not a safetensors file: {error}") from error
    except OSError as error:
        raise ModelError(f"{path}: {error}") from error


def _copy(path: Path, name: str, source: torch.Tensor, destination: torch.Tensor) -> None:
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
