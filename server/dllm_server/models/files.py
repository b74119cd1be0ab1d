"""A checkpoint's files, read with an error that names the file, what is wrong with it and the remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dllm_server.cause import Cause, Explanation

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_POINTER = b"version https://git-lfs.github.com/spec/"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


class ModelError(ValueError):
    """A checkpoint cannot be served; the message names the file or field and the remedy."""

    def __init__(self, message: str, cause: Cause = Cause.MODEL, **numbers: int) -> None:
        super().__init__(message)
        self.why = Explanation(cause, numbers)


def read_config_json(directory: Path) -> dict[str, Any]:
    """``config.json``, which every checkpoint needs."""
    path = directory / "config.json"
    if not path.exists():
        raise ModelError(
            f"{path}: No such file or directory: a model directory needs config.json", Cause.NO_CONFIG
        )
    return read_json(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    refuse_pointer(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: not a JSON object")
    return values


def read_json_if_there(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is no such file."""
    return read_json(path) if path.exists() else {}


def refuse_pointer(path: Path) -> None:
    """A clone without Git LFS leaves small text files in place of the large ones."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_POINTER))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    if head == _POINTER:
        raise ModelError(
            f"{path}: a Git LFS pointer, not the file itself: run `git lfs pull` in {path.parent}, "
            "or download the model from the hub",
            Cause.LFS_POINTER,
        )


def shard_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint: those its index names, or the single file."""
    index = directory / INDEX
    names = _names_in(index) if index.exists() else [SINGLE] if (directory / SINGLE).exists() else []
    if not names:
        raise ModelError(
            f"{directory}: holds neither {SINGLE} nor {INDEX}: {_instead(directory)}", Cause.NO_WEIGHTS
        )
    paths = [directory / name for name in names]
    for path in paths:
        refuse_pointer(path)
    return paths


def _names_in(index: Path) -> list[str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise ModelError(f"{index}: not a safetensors index: weight_map is {weight_map!r}")
    for name in sorted(set(map(str, weight_map.values()))):
        if name not in weight_map.values():
            raise ModelError(f"{index}: not a safetensors index: weight_map names {name}, which is no text")
        if Path(name).name != name:
            raise ModelError(
                f"{index.parent}: shard {name} is named by {INDEX} but is not there beside it: shards in "
                "other folders are not read: move them beside the index and name them without a folder",
                Cause.NO_WEIGHTS,
            )
        if not (index.parent / name).is_file():
            raise ModelError(
                f"{index.parent}: shard {name} is named by {INDEX} but is not there: download it again",
                Cause.NO_WEIGHTS,
            )
    return sorted(set(weight_map.values()))


def _instead(directory: Path) -> str:
    """What the directory holds in place of weights that are read, and what to do."""
    inside = sorted(path for path in directory.rglob("*") if path.is_file())
    safetensors = [path.relative_to(directory) for path in inside if path.suffix == ".safetensors"]
    beside = [path for path in safetensors if path.parent == Path()]
    pickles = [path.relative_to(directory) for path in inside if path.suffix in _PICKLES]
    if beside:
        return f"{beside[0]} is there, but no index names it: add the index, or rename a single file"
    if safetensors:
        return f"{safetensors[0]} lies in a subfolder: point at the folder that holds config.json and weights"
    if pickles:
        return f"{pickles[0]} is a pickle, which can run code and is never read: convert it to safetensors"
    return "only safetensors are read: download the weights"
