"""Tiny random checkpoints in the official layouts of LLaDA and Dream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

MASK, EOS = 60, 61


@dataclass(frozen=True)
class Size:
    """A model small enough for a CPU step of a millisecond; ``std`` spreads the logits far apart."""

    family: str = "llada"
    n_kv_heads: int = 4
    is_tied: bool = False
    d_model: int = 32
    n_layers: int = 2
    n_heads: int = 4
    mlp_width: int = 48
    vocab_size: int = 64
    max_model_len: int = 128
    seed: int = 0
    std: float = 0.35
    eos: int = EOS


def make_checkpoint(directory: Path, size: Size = Size(), *, shards: int = 1) -> Path:
    """Write config.json and safetensors (with an index where there are several) to ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    write_config(directory, make_config(size))
    write_shards(directory, make_weights(size), shards)
    return directory


def write_config(directory: Path, config: dict[str, Any]) -> None:
    (directory / "config.json").write_text(json.dumps(config))


def write_shards(directory: Path, weights: dict[str, Tensor], shards: int) -> None:
    if shards == 1:
        save_file(weights, directory / "model.safetensors")
        return
    names = sorted(weights)
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number::shards]
        save_file({name: weights[name] for name in part}, directory / file)
        weight_map |= dict.fromkeys(part, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def make_config(size: Size) -> dict[str, Any]:
    return _dream_config(size) if size.family == "dream" else _llada_config(size)


def make_weights(size: Size) -> dict[str, Tensor]:
    """Official names -> float32 tensors, the same for a seed."""
    generator = torch.Generator().manual_seed(size.seed)

    def normal(*shape: int, std: float = size.std) -> Tensor:
        return torch.randn(shape, generator=generator) * std

    def norm() -> Tensor:
        return 1.0 + normal(size.d_model, std=0.1)

    key_width = size.d_model // size.n_heads * size.n_kv_heads
    width, mlp = size.d_model, size.mlp_width
    is_dream = size.family == "dream"
    embedding = "model.embed_tokens.weight" if is_dream else "model.transformer.wte.weight"
    final_norm = "model.norm.weight" if is_dream else "model.transformer.ln_f.weight"
    head = "lm_head.weight" if is_dream else "model.transformer.ff_out.weight"
    weights = {embedding: normal(size.vocab_size, width, std=1.0), final_norm: norm()}
    if not size.is_tied:
        weights[head] = normal(size.vocab_size, width)
    for layer in range(size.n_layers):
        root = f"model.layers.{layer}." if is_dream else f"model.transformer.blocks.{layer}."
        attention = "self_attn." if is_dream else ""
        for part, rows in (("q", width), ("k", key_width), ("v", key_width)):
            weights[f"{root}{attention}{part}_proj.weight"] = normal(rows, width)
            if is_dream:
                weights[f"{root}{attention}{part}_proj.bias"] = normal(rows)
        names = _DREAM_NAMES if is_dream else _LLADA_NAMES
        weights[root + names["out"]] = normal(width, width)
        weights[root + names["gate"]] = normal(mlp, width)
        weights[root + names["up"]] = normal(mlp, width)
        weights[root + names["down"]] = normal(width, mlp)
        weights[root + names["attention_norm"]] = norm()
        weights[root + names["mlp_norm"]] = norm()
    return weights


_LLADA_NAMES = {
    "out": "attn_out.weight",
    "gate": "ff_proj.weight",
    "up": "up_proj.weight",
    "down": "ff_out.weight",
    "attention_norm": "attn_norm.weight",
    "mlp_norm": "ff_norm.weight",
}
_DREAM_NAMES = {
    "out": "self_attn.o_proj.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "attention_norm": "input_layernorm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
}


def _llada_config(size: Size) -> dict[str, Any]:
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "d_model": size.d_model,
        "n_heads": size.n_heads,
        "n_kv_heads": size.n_kv_heads,
        "n_layers": size.n_layers,
        "mlp_hidden_size": size.mlp_width,
        "vocab_size": size.vocab_size,
        "embedding_size": size.vocab_size,
        "max_sequence_length": size.max_model_len,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "weight_tying": size.is_tied,
        "mask_token_id": MASK,
        "eos_token_id": size.eos,
    }


def _dream_config(size: Size) -> dict[str, Any]:
    return {
        "architectures": ["DreamModel"],
        "model_type": "Dream",
        "hidden_size": size.d_model,
        "num_attention_heads": size.n_heads,
        "num_key_value_heads": size.n_kv_heads,
        "num_hidden_layers": size.n_layers,
        "intermediate_size": size.mlp_width,
        "vocab_size": size.vocab_size,
        "max_position_embeddings": size.max_model_len,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": size.is_tied,
        "mask_token_id": MASK,
        "eos_token_id": size.eos,
    }


def write_tokenizer(directory: Path, *, added: dict[str, int], words: int = 64, **config: Any) -> None:
    """A tokenizer of words ``t0``, ``t1``, ... and added special tokens by text; ``config`` are fields of
    tokenizer_config.json."""
    taken = {token_id: text for text, token_id in added.items()}
    vocabulary = {taken.get(number, f"t{number}"): number for number in range(words)}
    listed = [
        {
            "id": token_id,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for text, token_id in added.items()
    ]
    tokenizer = {
        "version": "1.0",
        "added_tokens": listed,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"},
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    fields = {"tokenizer_class": "PreTrainedTokenizerFast"} | config
    (directory / "tokenizer_config.json").write_text(json.dumps(fields))
