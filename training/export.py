"""Writes a checkpoint that LLaDA loaders read: bf16 safetensors in shards, config, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from training.model import MaskedDiffusionModel, ModelShape, config_json
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


def weights_of(folder: Path, tokenizer: Tokenizer) -> dict[str, Tensor]:
    """What `export` wrote, named as in the model's state dict.

    Raises ValueError where a token of that model has another id in `tokenizer`.
    """
    known = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    moved = [token for token, index in known.items() if tokenizer.token_to_id(token) != index]
    if moved:
        raise ValueError(f"{folder}: {len(moved)} tokens have other ids now, such as {moved[0]!r}")
    shards = sorted(folder.glob("*.safetensors"))
    stored = {name: weight for shard in shards for name, weight in load_file(shard).items()}
    return {name.removeprefix("model."): weight for name, weight in stored.items()}


def load_model(folder: Path, tokenizer: Tokenizer) -> MaskedDiffusionModel:
    """The model that `export` wrote, on the CPU."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = MaskedDiffusionModel(
        ModelShape(**{name: config[name] for name in ModelShape.__dataclass_fields__})
    )
    model.load_state_dict(weights_of(folder, tokenizer))
    return model


def _size_bytes(weights: object) -> int:
    return sum(weight.nbytes for weight in weights)  # type: ignore[attr-defined]


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
