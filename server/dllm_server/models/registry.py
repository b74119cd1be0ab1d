"""Architecture name -> family. Dispatch is on ``architectures``: ``model_type`` "llada" names two different
models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_server.cause import Cause
from dllm_server.models.config import ModelConfig
from dllm_server.models.dream import DREAM
from dllm_server.models.family import Family
from dllm_server.models.fast_dllm import FAST_DLLM
from dllm_server.models.files import ModelError, read_config_json, read_json_if_there
from dllm_server.models.illada import ILLADA
from dllm_server.models.llada import LLADA
from dllm_server.models.llada2 import LLADA2
from dllm_server.models.llada_moe import LLADA_MOE
from dllm_server.models.sdar import SDAR, SDAR_MOE
from dllm_server.models.special_tokens import TokenNames, read_token_names

_ALL = (LLADA, ILLADA, LLADA_MOE, DREAM, LLADA2, SDAR, SDAR_MOE, FAST_DLLM)
FAMILIES = {architecture: family for family in _ALL for architecture in family.architectures}
_NO_NAMES = TokenNames()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's directory, its family, and what it says of itself."""

    directory: Path
    family: Family
    config: ModelConfig


def open_checkpoint(directory: Path) -> Checkpoint:
    """Read a directory's configs and tokenizer files; ``ModelError`` says why it cannot be served."""
    values = read_config_json(directory)
    generation = read_json_if_there(directory / "generation_config.json")
    family, config = find_family(values, generation, read_token_names(directory))
    return Checkpoint(directory, family, config)


def find_family(
    values: Mapping[str, Any], generation: Mapping[str, Any] | None = None, names: TokenNames = _NO_NAMES
) -> tuple[Family, ModelConfig]:
    """The family of a config.json and its parsed definition; ``ModelError`` lists what is supported."""
    architectures = values.get("architectures") or []
    architectures = architectures if isinstance(architectures, list) else [architectures]
    known = [name for name in architectures if name in FAMILIES]
    if not known:
        named = ", ".join(map(str, architectures)) or "none"
        raise ModelError(
            f"config.json: architectures names {named}, supported are {', '.join(sorted(FAMILIES))}",
            Cause.ARCHITECTURE,
        )
    _refuse_quantised(values)
    family = FAMILIES[known[0]]
    return family, family.parse(values, known[0], generation or {}, names)


def _refuse_quantised(values: Mapping[str, Any]) -> None:
    for name in ("quantization_config", "compression_config"):
        settings = values.get(name)
        if settings:
            method = settings.get("quant_method") if isinstance(settings, dict) else None
            raise ModelError(
                f"config.json: {name} says that the weights are quantised ({method or 'method not named'}): "
                "serve the float32, float16 or bfloat16 checkpoint",
                Cause.QUANTISED,
            )
