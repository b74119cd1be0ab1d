"""Rules about the tree that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("kernels", "server", "operator")
NAMELESS = {"utils.py", "helpers.py", "common.py", "misc.py", "util.py", "helper.py"}
PACKAGES_WITH_ROOMS = {
    "engine": ("server/dllm_server/engine", "dllm_server.engine"),
    "api": ("server/dllm_server/api", "dllm_server.api"),
    "operator": ("operator/dllm_operator", "dllm_operator"),
}
MOST_LINES = 400
MOST_BYTES = 48 * 1024**2


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_two_test_files_have_one_name() -> None:
    """pytest would collect neither, but only where both are asked for."""
    names = Counter(path.name for path in ROOT.glob("tests/**/test_*.py"))

    assert [name for name, count in names.items() if count > 1] == []


def test_no_product_file_is_longer_than_400_lines() -> None:
    files = [path for part in PRODUCT for path in (ROOT / part).rglob("*.py")]

    long = {str(path): len(path.read_text().splitlines()) for path in files}

    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}


def test_every_file_is_named_for_what_it_holds() -> None:
    folders = [
        ROOT / part
        for part in (*PRODUCT, "training", "tests", "benchmarks", "observability")
        if (ROOT / part).is_dir()
    ]

    assert [path for folder in folders for path in folder.rglob("*.py") if path.name in NAMELESS] == []


def test_tracked_files_stay_below_48_mebibytes_in_all() -> None:
    assert sum(path.stat().st_size for path in tracked_files() if path.is_file()) < MOST_BYTES


@pytest.mark.parametrize("name", PACKAGES_WITH_ROOMS)
def test_the_drawing_of_a_package_shows_its_rooms_and_their_imports(name: str) -> None:
    folder, package = PACKAGES_WITH_ROOMS[name]

    drawn = re.findall(
        rf"\b{name}\.(\w+)(?:\[[^\]]*\])? --> {name}\.(\w+)", (ROOT / "docs/architecture.md").read_text()
    )

    assert set(drawn) == without_shortcuts(imports_between_rooms(ROOT / folder, package))


def imports_between_rooms(folder: Path, package: str) -> set[tuple[str, str]]:
    """(room, room it imports); a module beside the rooms is a room of its own."""
    found = set()
    for path in folder.rglob("*.py"):
        room = path.relative_to(folder).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{package}."):
                inside = (node.module or "").removeprefix(package).strip(".")
                names = [inside.split(".")[0]] if inside else [alias.name for alias in node.names]
                found |= {(room, name) for name in names if name != room}
    return found


def without_shortcuts(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows that do not follow from others, of a relation without circles."""

    def below(room: str) -> set[str]:
        nexts = {end for start, end in arrows if start == room}
        return nexts.union(*(below(end) for end in nexts))

    beside = {
        (start, end): {other for first, other in arrows if first == start} - {end} for start, end in arrows
    }
    return {arrow for arrow in arrows if not any(arrow[1] in below(other) for other in beside[arrow])}
