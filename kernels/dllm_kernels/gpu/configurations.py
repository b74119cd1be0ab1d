"""Tile shapes to try for each kernel, in one place, and the table of those that measured best.

The first candidate of a kernel is what serves without a table.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Self

import torch
import triton
from torch import Tensor

Key = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Configuration:
    """``blocks`` are the kernel's constexpr tile sizes by name; ``splits`` 0 lets the kernel's own rule fill
    the device, with ``residents`` programs on each multiprocessor."""

    blocks: Mapping[str, int]
    num_warps: int = 4
    num_stages: int = 3
    splits: int = 0
    residents: int = 1

    @property
    def launch(self) -> dict[str, int]:
        """Keyword arguments of a launch."""
        return {**self.blocks, "num_warps": self.num_warps, "num_stages": self.num_stages}


def _project(
    rows: int, columns: int, depth: int, warps: int, stages: int, flattens: int, residents: int = 1
) -> Configuration:
    blocks = {
        "block_rows": rows,
        "block_columns": columns,
        "block_depth": depth,
        "is_flattened": flattens,
    }
    return Configuration(blocks, warps, stages, residents=residents)


def _attend(queries: int, keys: int, warps: int, stages: int, splits: int = 0) -> Configuration:
    return Configuration({"block_queries": queries, "block_keys": keys}, warps, stages, splits)


def _stream(columns: int, depth: int, stages: int, ahead: int, swaps: int = 0) -> Configuration:
    """``ahead`` bytes of each weight row are asked for early."""
    blocks = {"block_columns": columns, "block_depth": depth, "swaps": swaps, "ahead_bytes": ahead}
    return Configuration(blocks, 4, stages)


def _group(columns: int, depth: int, warps: int, stages: int, swaps: int) -> Configuration:
    blocks = {"block_columns": columns, "block_depth": depth, "swaps": swaps}
    return Configuration(blocks, warps, stages)


CANDIDATES: Mapping[str, tuple[Configuration, ...]] = {
    # Many rows: the product is the floor.
    "lm_head_many": (
        _project(128, 256, 64, 8, 3, 0),
        _project(128, 256, 64, 8, 4, 0),
        _project(128, 256, 64, 8, 3, 1),
        _project(128, 128, 64, 4, 4, 0),
        _project(128, 128, 64, 8, 4, 0),
        _project(256, 128, 64, 8, 3, 0),
        _project(128, 128, 64, 4, 3, 0, residents=2),  # one multiplies while the other chooses
    ),
    # Few rows: the weight's read is the floor.
    "lm_head_few": (
        _project(64, 128, 128, 4, 4, 0),
        _project(64, 128, 64, 4, 6, 0),
        _project(64, 256, 64, 8, 4, 0),
        _project(64, 256, 64, 4, 4, 1),
        _project(32, 128, 128, 4, 4, 0),
        _project(64, 64, 128, 4, 6, 0),
    ),
    "lm_head_many_sampled": (
        _project(128, 128, 64, 8, 4, 0),
        _project(128, 64, 64, 8, 4, 0),
        _project(128, 64, 64, 8, 4, 0, residents=2),
        _project(128, 64, 128, 4, 3, 0),
    ),
    "lm_head_few_sampled": (
        _project(64, 64, 128, 4, 6, 0),
        _project(64, 128, 128, 8, 4, 0),
    ),
    "logits_chunk": (
        Configuration({"block_rows": 1, "block_columns": 4096}, 4, 1),
        Configuration({"block_rows": 1, "block_columns": 4096}, 8, 1),
        Configuration({"block_rows": 1, "block_columns": 2048}, 4, 1),
        Configuration({"block_rows": 2, "block_columns": 2048}, 4, 1),
        Configuration({"block_rows": 1, "block_columns": 8192}, 8, 1),
    ),
    "varlen_attention": (
        _attend(128, 64, 8, 3),
        _attend(128, 64, 8, 2),
        _attend(128, 128, 8, 2),
        _attend(64, 64, 4, 3),
        _attend(64, 64, 4, 2),
        _attend(64, 32, 4, 4),
    ),
    # Keys are found through slots: of five stages two hold K/V, of seven three.
    "paged_attention": (
        _attend(32, 64, 4, 5),
        _attend(32, 32, 4, 5),
        _attend(32, 32, 4, 7),
        _attend(32, 128, 8, 3),
        _attend(64, 64, 4, 5),
        _attend(32, 64, 4, 5, splits=1),
    ),
    "paged_attention_wide": (
        _attend(64, 64, 4, 5),
        _attend(64, 64, 4, 3),
        _attend(128, 64, 4, 3),
        _attend(128, 64, 8, 3),
        _attend(256, 64, 8, 3),
    ),
    "kv_score": (
        Configuration({"block_keys": 64, "block_window": 16}, 4, 2),
        Configuration({"block_keys": 128, "block_window": 32}, 8, 2),
        Configuration({"block_keys": 32, "block_window": 16}, 4, 2),
    ),
    "kv_select": tuple(Configuration({}, warps, 1) for warps in (4, 8)),
    "kv_pack": (
        Configuration({"block_keys": 32}, 4, 1),
        Configuration({"block_keys": 64}, 4, 1),
        Configuration({"block_keys": 16}, 2, 1),
    ),
    # The weights' read is the floor: many bytes in flight on every multiprocessor.
    "linear": (
        _stream(32, 128, 5, 512),
        _stream(64, 128, 6, 512, swaps=1),
        _stream(64, 128, 5, 1024, swaps=1),
        _stream(32, 256, 3, 512),
    ),
    "gated_linear": (
        _stream(64, 128, 4, 512, swaps=1),
        _stream(64, 128, 4, 0, swaps=1),
        _stream(64, 64, 5, 512, swaps=1),
        _stream(32, 128, 4, 512),
    ),
    "add_linear": (
        _stream(32, 256, 5, 1024),
        _stream(32, 256, 5, 2048),
        _stream(16, 256, 5, 1024),
        _stream(32, 128, 5, 1024),
        _stream(64, 128, 6, 1024, swaps=1),
    ),
    "rms_norm": tuple(Configuration({}, warps, 1) for warps in (8, 4, 16)),
    "rope": (Configuration({"block_heads": 16}, 4, 1), Configuration({"block_heads": 32}, 4, 1)),
    "silu_and_multiply": (
        Configuration({"block_columns": 2048}, 8, 1),
        Configuration({"block_columns": 1024}, 4, 1),
        Configuration({"block_columns": 4096}, 8, 1),
    ),
    "route": (Configuration({"block_tokens": 1}, 1, 1), Configuration({"block_tokens": 4}, 4, 1)),
    "expert_order": tuple(
        Configuration({"block_slots": slots}, warps, 1) for slots, warps in ((256, 8), (128, 4), (256, 4))
    ),
    # By rows of a tile. Few rows an expert: the read of the experts' weights is the floor, and two programs
    # or more share a multiprocessor, so that one reads while the other begins or ends.
    "experts_gate_16": (_group(64, 128, 4, 4, 1), _group(128, 128, 4, 3, 1)),
    "experts_gate_32": (_group(128, 128, 4, 3, 1), _group(64, 128, 4, 4, 1)),
    "experts_gate_64": (_group(128, 64, 4, 5, 0), _group(128, 64, 4, 5, 1)),
    "experts_gate_128": (_group(128, 64, 8, 4, 0), _group(64, 64, 4, 3, 1), _group(128, 64, 8, 4, 1)),
    "experts_down_16": (_group(128, 128, 4, 3, 1), _group(64, 128, 4, 3, 1)),
    "experts_down_32": (_group(128, 128, 4, 2, 1), _group(64, 128, 4, 3, 1)),
    "experts_down_64": (_group(128, 64, 4, 3, 0), _group(256, 64, 4, 5, 0), _group(128, 128, 4, 2, 0)),
    "experts_down_128": (_group(128, 64, 8, 3, 0), _group(256, 64, 8, 4, 0), _group(128, 64, 4, 3, 0)),
    "experts_sum": (
        Configuration({"block_columns": 1024}, 4, 1),
        Configuration({"block_columns": 512}, 2, 1),
        Configuration({"block_columns": 2048}, 8, 1),
        Configuration({"block_columns": 2048}, 4, 1),
    ),
}

# float32 is multiplied without matrix units, and fills registers and shared memory twice as fast.
_FLOAT32: Mapping[str, tuple[Configuration, ...]] = {
    **dict.fromkeys(
        ("lm_head_many", "lm_head_few", "lm_head_many_sampled", "lm_head_few_sampled"),
        (_project(32, 64, 32, 4, 2, 0),),
    ),
    **dict.fromkeys(("linear", "gated_linear", "add_linear"), (_stream(32, 32, 2, 0),)),
    "varlen_attention": (_attend(16, 16, 4, 2),),
    **dict.fromkeys(("paged_attention", "paged_attention_wide"), (_attend(16, 32, 4, 2),)),
    **{
        f"experts_{product}_{rows}": (_group(16, 16, max(4, rows // 8), 2, 0),)
        for product in ("gate", "down")
        for rows in (16, 32, 64, 128)
    },
}


def candidates(kernel: str, key: Key) -> tuple[Configuration, ...]:
    """What to try for a kernel; ``key`` names the dtype."""
    return _FLOAT32.get(kernel, CANDIDATES[kernel]) if "float32" in key else CANDIDATES[kernel]


def bucket(value: int) -> int:
    """Sizes of one bucket share a configuration: the least power of two that is at least ``value``."""
    return 1 << max(value - 1, 0).bit_length()


def device_name(device: torch.device) -> str:
    """What a table is valid for: the device, the compiler, the library, and what was tried."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    tried = sha256(repr((CANDIDATES, _FLOAT32)).encode()).hexdigest()[:8]
    return f"{name}, triton {triton.__version__}, torch {torch.__version__}, candidates {tried}"


def default_path() -> Path:
    """Beside Triton's own cache of compiled kernels."""
    root = os.environ.get("TRITON_CACHE_DIR")
    return (Path(root) if root else Path.home() / ".triton" / "cache") / "dllm_configurations.json"


class BrokenTableError(ValueError):
    """A file that holds no tables."""


@dataclass(slots=True)
class ConfigurationTable:
    """The best configuration of each kernel and bucket, and where an operation has variants the best of
    them, as ``warm_up`` measured them."""

    entries: dict[str, Configuration] = field(default_factory=dict)
    variants: dict[str, str] = field(default_factory=dict)
    _found: dict[tuple[str, Key], Configuration] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def name_of(kernel: str, key: Key) -> str:
        return f"{kernel} {' '.join(str(part) for part in key)}"

    def copy(self) -> Self:
        return type(self)(dict(self.entries), dict(self.variants))

    def get(self, kernel: str, key: Key) -> Configuration:
        """Asked for at every launch, so that what was found once is kept."""
        found = self._found.get((kernel, key))
        if found is None:
            found = self.entries.get(self.name_of(kernel, key), candidates(kernel, key)[0])
            self._found[kernel, key] = found
        return found

    def holds(self, kernel: str, key: Key) -> bool:
        return self.name_of(kernel, key) in self.entries

    def variant(self, operation: str, key: Key) -> str | None:
        """The variant of an operation that measured best, None without a measurement."""
        return self.variants.get(self.name_of(operation, key))

    def put(self, kernel: str, key: Key, configuration: Configuration) -> None:
        self.entries[self.name_of(kernel, key)] = configuration
        self._found.pop((kernel, key), None)

    def put_variant(self, operation: str, key: Key, variant: str) -> None:
        self.variants[self.name_of(operation, key)] = str(variant)

    def save(self, path: Path, device: str) -> None:
        """Write the entries of ``device``; those of other devices in the file stay, unless it is broken."""
        try:
            stored = _read(path)
        except BrokenTableError:
            stored = {}
        entries = {name: asdict(entry) for name, entry in sorted(self.entries.items())}
        stored[device] = {"entries": entries, "variants": dict(sorted(self.variants.items()))}
        path.parent.mkdir(parents=True, exist_ok=True)
        # Others, also of other pods, may read and write the same file: it changes as a whole.
        with NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
            file.write(json.dumps(stored, indent=1) + "\n")
        part = Path(file.name)
        part.chmod(0o644)  # temporary files are for their owner alone
        part.replace(path)

    @classmethod
    def load(cls, path: Path, device: str) -> Self:
        """The entries of ``device``, none where the file does not know it. Raises ``BrokenTableError``."""
        stored = _read(path).get(device, {"entries": {}, "variants": {}})
        entries = {name: Configuration(**entry) for name, entry in stored["entries"].items()}
        return cls(entries, dict(stored["variants"]))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise BrokenTableError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise BrokenTableError(f"{path} holds no table of configurations")
    return content


def multiprocessors(tensor: Tensor) -> int:
    """How many programs the device runs side by side, at least."""
    if tensor.device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(tensor.device).multi_processor_count
