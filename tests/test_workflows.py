"""Workflows, forms and hooks name what exists."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"])
WORKFLOWS = sorted((ROOT / ".github/workflows").iterdir())
MATRIX = re.compile(r"\$\{\{ matrix\.(\w+) \}\}")
PATH = re.compile(r"(?<![\w/.-])(?:\.ci|\.github|charts|docker|docs|tests)/[\w./-]+(?![\w./@-])")


def read(path: Path) -> dict[Any, Any]:
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    return content


def jobs(path: Path) -> Iterator[dict[str, Any]]:
    yield from read(path)["jobs"].values()


def commands(path: Path) -> list[str]:
    return [step["run"] for job in jobs(path) for step in job.get("steps", []) if "run" in step]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_of_the_project_is_yaml(path: Path) -> None:
    assert read(path)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_names_files_that_exist(path: Path) -> None:
    """Values of a job's matrix stand in for its names."""
    texts = [path.read_text()]
    for job in jobs(path):
        for case in job.get("strategy", {}).get("matrix", {}).get("include", []):
            texts.append(MATRIX.sub(lambda name, case=case: str(case[name[1]]), yaml.safe_dump(job)))
    named = {name for text in texts for name in PATH.findall(text) if not name.endswith("/")}

    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_makes_targets_of_the_makefile(path: Path) -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None

    made = {target for command in commands(path) for target in re.findall(r"\bmake ([\w-]+)", command)}

    assert made
    assert made <= set(phony[1].split())


def test_a_job_asks_for_every_job_whose_outputs_it_reads() -> None:
    for path in WORKFLOWS:
        for job in jobs(path):
            needs = job.get("needs", [])
            read_of = set(re.findall(r"\bneeds\.(\w+)", yaml.safe_dump(job)))
            assert read_of <= ({needs} if isinstance(needs, str) else set(needs)), path


def test_hooks_run_the_programs_of_the_makefiles_environment() -> None:
    lint = (ROOT / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0]
    linters = set(re.findall(r"\$\(BIN\)/([\w-]+)", lint))

    local = next(repo for repo in read(ROOT / ".pre-commit-config.yaml")["repos"] if repo["repo"] == "local")
    programs = {hook["entry"].split()[0] for hook in local["hooks"]}

    assert programs == {f".venv/bin/{linter}" for linter in linters}


def test_package_and_chart_have_one_version_and_the_changelog_knows_it() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = read(ROOT / "charts/dllm-operator/Chart.yaml")

    assert (chart["version"], chart["appVersion"]) == (version, version)
    assert re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog(), re.MULTILINE)


def test_the_changelog_has_the_groups_of_its_format() -> None:
    groups = re.findall(r"^### (.*)$", changelog(), re.MULTILINE)

    assert changelog().count("\n## [Unreleased]\n") == 1
    assert set(groups) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", ["CHANGELOG", "CODE_OF_CONDUCT", "CONTRIBUTING", "README", "SECURITY"])
def test_a_page_links_to_files_that_exist(name: str) -> None:
    page = (ROOT / f"{name}.md").read_text()

    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", page)}

    assert {one for one in targets if one and "://" not in one and not (ROOT / one).exists()} == set()
