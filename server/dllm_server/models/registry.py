"""Architecture name -> family. Dispatch is on ``architectures``: ``model_type`` "llada" names two different
models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dllm_server.models import dream, llada
from dllm_server.models.config import ModelConfig, ModelError
from dllm_server.models.transformer import Target


@dataclass(frozen=True, slots=True)
class Family:
    parse_config: Callable[[Mapping[str, Any], str], ModelConfig]
    weight_targets: Callable[[ModelConfig], dict[str, Target]]


FAMILIES = {
    architecture: Family(module.parse_config, module.weight_targets)
    for module in (llada, dream)
    for architecture in module.ARCHITECTURES
}


def find_family(values: Mapping[str, Any]) -> tuple[Family, ModelConfig]:
    """The family of a config.json and its parsed definition; ``ModelError`` lists what is supported."""
    architectures = values.get("architectures") or []
    for architecture in architectures:
        if architecture in FAMILIES:
            family = FAMILIES[architecture]
            return family, family.parse_config(values, architecture)
    named = ", ".join(map(str, architectures)) or "none"
    raise ModelError(f"config.json: architectures names {named}, supported are {', '.join(sorted(FAMILIES))}")
