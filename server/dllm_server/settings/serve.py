"""All of ``dllm serve``, merged from flags, environment and a file."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Any, Self, get_args, get_origin

import yaml
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dllm_server.settings.api import ApiSettings
from dllm_server.settings.engine import EngineSettings
from dllm_server.settings.log import LogSettings


class ServeSettings(BaseSettings, EngineSettings, ApiSettings, LogSettings):
    """All of ``dllm serve``: flags over ``DLLM_...`` environment over the YAML file over defaults."""

    model_config = SettingsConfigDict(env_prefix="DLLM_", extra="forbid", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings

    @classmethod
    def load(cls, flags: dict[str, Any], config_file: Path | None = None) -> Self:
        """Merge flags, environment and file; unknown keys and bad values raise ``ValueError`` naming them."""
        from_file = read_yaml_mapping(config_file) if config_file is not None else {}
        unknown = sorted(set(from_file) - set(cls.model_fields))
        if unknown:
            raise ValueError(f"{config_file}: unknown setting {', '.join(unknown)}")
        prefix = str(cls.model_config.get("env_prefix", ""))
        from_file = {name: value for name, value in from_file.items() if not _in_environment(prefix + name)}
        return cls(**(from_file | flags))

    def engine(self) -> EngineSettings:
        return EngineSettings(**{name: getattr(self, name) for name in EngineSettings.model_fields})

    def logs(self) -> LogSettings:
        return LogSettings(**{name: getattr(self, name) for name in LogSettings.model_fields})

    def api(self) -> ApiSettings:
        return ApiSettings(**{name: getattr(self, name) for name in ApiSettings.model_fields})


def rule_of(name: str) -> str:
    """What values a setting takes, in words."""
    field = ServeSettings.model_fields[name]
    kind: Any = field.annotation
    while (parts := get_args(kind)) and get_origin(kind) is not tuple:
        kind = next(part for part in parts if part is not NoneType)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return f"one of {', '.join(kind)}"
    if name.endswith("_bytes") or name == "gpu_memory_limit":
        return "a size in bytes such as 4GiB"
    limits = {
        word: getattr(limit, symbol)
        for symbol, word in _LIMITS.items()
        for limit in field.metadata
        if getattr(limit, symbol, None) is not None
    }
    what = {int: "a whole number", float: "a number"}.get(kind, "what the documentation of the settings says")
    return " ".join([what, *(f"{word} {limit:g}" for word, limit in limits.items())])


_LIMITS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The top-level mapping of a YAML file; ``ValueError`` names the file when it is missing or something
    else."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not settings (name: value)")
    return {str(name).replace("-", "_"): value for name, value in content.items()}


def _in_environment(name: str) -> bool:
    return any(key.upper() == name.upper() for key in os.environ)
