"""Where a model comes from: the package, a local directory or the hub."""

from __future__ import annotations

from pathlib import Path

from dllm_server.cause import Cause
from dllm_server.models.files import ModelError
from dllm_server.models.hub_cache import snapshot_of
from dllm_server.settings import EMBEDDED_MODEL

EMBEDDED_DIRECTORY = Path(__file__).parent / "embedded"

_WEIGHTS = ["*.safetensors"]
_PATTERNS = [
    "*.safetensors.index.json",
    "config.json",
    "tokenizer*.json",
    "vocab.json",
    "merges.txt",
]
_PATTERNS += ["special_tokens_map.json", "added_tokens.json", "generation_config.json"]
_PATTERNS += ["chat_template.jinja", "additional_chat_templates/*.jinja"]


def resolve_model(model: str, revision: str | None = None, *, has_weights: bool = True) -> Path:
    """A local directory with the model's files, or a folder of the hub's cache; a hub id is downloaded to the
    hub's cache (data only, never code), on request without its weights.

    Raises ``ModelError`` when the directory is missing or the hub refuses.
    """
    if model == EMBEDDED_MODEL:
        return EMBEDDED_DIRECTORY
    path = _path(model)
    if path.is_dir():
        return snapshot_of(path, revision)
    if path.is_file():
        raise ModelError(
            f"{model}: a file, not a directory: give the directory that holds config.json", Cause.NO_MODEL
        )
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1 or model.endswith("/"):
        raise ModelError(f"{model}: no such directory, and not a hub id (owner/name)", Cause.NO_MODEL)
    from dllm_server.models.hub import download

    return download(model, revision, [*_PATTERNS, *(_WEIGHTS if has_weights else ())])


def _path(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError as error:
        raise ModelError(f"{model}: no such directory: {error}", Cause.NO_MODEL) from error


def model_name(model: str, served_model_name: str | None) -> str:
    """The name the API serves."""
    if served_model_name is not None:
        return served_model_name
    if model == EMBEDDED_MODEL:
        return "dllm-embedded"
    path = _path(model)
    return path.resolve().name if path.is_dir() else model
