"""A folder of the hub's cache, as a volume may hold one: ``refs/`` and ``snapshots/COMMIT/``."""

from __future__ import annotations

from pathlib import Path

from dllm_server.models.files import ModelError


def snapshot_of(directory: Path, revision: str | None = None) -> Path:
    """``directory`` itself where it holds a model; else its snapshot of ``revision`` (a ref or commit), of
    ``main``, or the only one. ``ModelError`` names those there are."""
    snapshots = directory / "snapshots"
    if (directory / "config.json").exists() or not snapshots.is_dir():
        return directory
    found = sorted(path.name for path in snapshots.iterdir() if path.is_dir())
    reference = directory / "refs" / (revision or "main")
    wanted = reference.read_text().strip() if reference.is_file() else revision
    if wanted is None and len(found) == 1:
        [wanted] = found
    if wanted in found:
        return snapshots / wanted
    names = ", ".join(found) or "none"
    raise ModelError(
        f"{directory}: no snapshot of revision {revision or 'main'} (there: {names}): name one of them with "
        f"--revision, or its directory {snapshots}/COMMIT"
    )
