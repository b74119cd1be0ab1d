"""Writes a checkpoint that LLaDA loaders read: bf16 safetensors in shards, config, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from training.model import ModelShape, config_json
from training.tokenizer import END_OF_TEXT, MASK, save_tokenizer, token_id

MAX_SHARD_BYTES = 12_000_000


def export(weights: Mapping[str, Tensor], shape: ModelShape, tokenizer: Tokenizer, folder: Path) -> None:
    """`weights` are named as in the model's state dict. Existing files are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {f"model.{name}": weight.detach().to("cpu", torch.bfloat16) for name, weight in weights.items()}
    shards: list[dict[str, Tensor]] = [{}]
    for name, weight in stored.items():
        if _size_bytes(shards[-1].values()) + weight.nbytes > MAX_SHARD_BYTES - 20_000:
            shards.append({})
        shards[-1][name] = weight.contiguous()
    files = [f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors" for index in range(len(shards))]
    for file, shard in zip(files, shards, strict=True):
        save_file(shard, folder / file, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": _size_bytes(stored.values())},
        "weight_map": {name: file for file, shard in zip(files, shards, strict=True) for name in shard},
    }
    _write_json(folder / "model.safetensors.index.json", index)
    identifiers = {
        "mask_token_id": token_id(tokenizer, MASK),
        "eos_token_id": token_id(tokenizer, END_OF_TEXT),
    }
    _write_json(folder / "config.json", config_json(shape, **identifiers))
    save_tokenizer(tokenizer, folder, shape.max_sequence_length)


def _size_bytes(weights: object) -> int:
    return sum(weight.nbytes for weight in weights)  # type: ignore[attr-defined]


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
