"""A model's folder of the hub's cache, served as it lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from dllm_server.models.files import ModelError
from dllm_server.models.hub_cache import snapshot_of
from dllm_server.models.source import EMBEDDED_DIRECTORY, resolve_model

COMMIT, OTHER = "a" * 40, "b" * 40


def make_cache(folder: Path, *commits: str, main: str | None = COMMIT) -> Path:
    """A model's folder as the hub's client lays it out: links from the snapshot to blobs."""
    for commit in commits:
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for file in EMBEDDED_DIRECTORY.iterdir():
            blob = folder / "blobs" / file.name
            blob.parent.mkdir(exist_ok=True)
            if not blob.exists():
                blob.symlink_to(file)
            (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    if main is not None:
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(main)
    return folder


@pytest.mark.parametrize(
    ("commits", "main", "revision", "chosen"),
    [
        pytest.param((COMMIT,), COMMIT, None, COMMIT, id="main"),
        pytest.param((COMMIT, OTHER), COMMIT, None, COMMIT, id="main among others"),
        pytest.param((OTHER,), None, None, OTHER, id="the only one, without refs"),
        pytest.param((COMMIT, OTHER), COMMIT, OTHER, OTHER, id="a commit"),
        pytest.param((COMMIT, OTHER), COMMIT, "main", COMMIT, id="a ref by name"),
    ],
)
def test_a_folder_of_the_hubs_cache_is_a_model(
    tmp_path: Path, commits: tuple[str, ...], main: str | None, revision: str | None, chosen: str
) -> None:
    folder = make_cache(tmp_path / "models--example--model", *commits, main=main)

    found = resolve_model(str(folder), revision)

    assert found == folder / "snapshots" / chosen
    assert (found / "config.json").is_file()


@pytest.mark.parametrize(
    ("commits", "main", "revision"),
    [
        pytest.param((COMMIT, OTHER), None, None, id="two, and no ref"),
        pytest.param((COMMIT,), COMMIT, OTHER, id="another commit"),
        pytest.param((OTHER,), COMMIT, None, id="a ref to what is not there"),
        pytest.param((), COMMIT, None, id="none"),
    ],
)
def test_a_snapshot_that_is_not_there_is_refused_with_those_that_are(
    tmp_path: Path, commits: tuple[str, ...], main: str | None, revision: str | None
) -> None:
    folder = make_cache(tmp_path / "models--example--model", *commits, main=main)
    (folder / "snapshots").mkdir(exist_ok=True)

    with pytest.raises(ModelError, match="no snapshot of revision") as refused:
        snapshot_of(folder, revision)

    assert all(commit in str(refused.value) for commit in commits)
    assert "--revision" in str(refused.value)
