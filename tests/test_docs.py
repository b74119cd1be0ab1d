"""The documentation: it builds as a site without a warning, and its commands are ones that exist."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from click.testing import CliRunner
from dllm_server.cli.commands import cli

from benchmarks.gpu.scale import LLADA_8B
from tests.server.public_configs import PUBLIC
from tests.walkthrough import blocks, commands

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
CONSOLE = re.compile(r"^```console\n\$ dllm plan (\S+) (.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONFIGS = {
    "GSAI-ML/LLaDA-8B-Instruct": LLADA_8B,
    "JetLM/SDAR-8B-Chat": PUBLIC["SDAR-8B-Chat"].config | {"mask_token_id": 151669, "block_size": 4},
}


class Page(HTMLParser):
    """Addresses that a page uses, ids that it has, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.loaded: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.ids |= {values["id"]} if "id" in values else set()
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif values.get("rel") not in ("index", "search", "next", "prev", "canonical"):
            self.loaded += [values[name] for name in ("src", "href") if name in values]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it; a warning is an error."""
    missing = [name for name in ("sphinx", "furo", "myst_parser") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: the extra docs, make install-test")
    folder = tmp_path_factory.mktemp("site")
    recipe = (ROOT / "Makefile").read_text().split("\ndocs:")[1].split("\n\n")[0]
    command = re.search(r"\$\(BIN\)/python (-m sphinx .*) docs build/site$", recipe, re.MULTILINE)
    assert command is not None
    assert "--fail-on-warning" in command[1]

    built = subprocess.run(
        [sys.executable, *shlex.split(command[1]), DOCS, folder],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert built.returncode == 0, built.stderr
    return folder


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / "site" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def quickstart(section: str) -> list[list[str]]:
    """Words of each of its commands."""
    shown = blocks((DOCS / "quickstart.md").read_text(), section)
    return [shlex.split(one) for block in shown if block.language == "bash" for one in commands(block.text)]


def test_every_page_is_in_the_navigation(site: Path) -> None:
    linked = {link.partition("#")[0] for link in Page(site / "index.html").links}

    assert {page.stem for page in PAGES} == {page.stem for page in site.glob("*.html")} - {
        "genindex",
        "search",
    }
    assert {f"{page.stem}.html" for page in PAGES if page.stem != "index"} <= linked


def test_links_inside_the_site_lead_somewhere(site: Path) -> None:
    pages = {path.name: Page(path) for path in site.glob("*.html")}

    def is_broken(of: str, link: str) -> bool:
        name, _, part = unquote(link).partition("#")
        if "://" in name or name.startswith(("mailto:", "data:")):
            return False
        target = pages.get(name or of)
        return not (site / (name or of)).exists() or bool(part and target and part not in target.ids)

    assert {
        (name, link)
        for name, page in pages.items()
        for link in [*page.links, *page.loaded]
        if is_broken(name, link.split("?")[0])
    } == set()


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = {one for path in site.glob("*.html") for one in Page(path).loaded}
    styles = "".join(path.read_text() for path in site.rglob("*.css"))

    assert loaded
    assert {one for one in loaded if "//" in one.split("data:")[0]} == set()
    assert not re.search(r"url\([\"']?(https?:)?//|@import", styles)


def test_drawings_of_mermaid_are_drawn(site: Path) -> None:
    source = (DOCS / "architecture.md").read_text()
    page = (site / "architecture.html").read_text()

    assert source.count("```mermaid") == page.count('<svg class="flowchart"')
    for label in re.findall(r'\w+\.\w+\["([^"]+)"\]', source):
        assert f">{label}<" in page.replace("&#x27;", "'")


@pytest.mark.parametrize(
    "source",
    [
        'flowchart TB\n a.b["b"] --> a.c["c"]',
        'flowchart TB\n subgraph a["a"]\n a.b["b"] --> a.c\n end',
        'flowchart TB\n subgraph a["a"]\n a.b["b"] -.-> a.c["c"]\n end',
    ],
)
def test_a_flowchart_that_would_lose_something_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="not a flowchart of one frame"):
        module("flowchart").flowchart(source)


def test_drawings_of_the_concepts_are_what_their_description_makes() -> None:
    for name, draw in module("drawings").DRAWINGS.items():
        assert (DOCS / "images" / f"{name}.svg").read_text() == draw(), "run: python docs/site/drawings.py"


def test_links_of_the_pages_lead_to_files_of_the_repository() -> None:
    """As GitHub resolves them."""
    targets = {
        (page.name, target.partition("#")[0])
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    }

    missing = {(page, to) for page, to in targets if to and "://" not in to and not (DOCS / to).exists()}
    assert missing == set()


def test_the_readme_names_every_page_but_the_sites_first() -> None:
    readme = (ROOT / "README.md").read_text()

    assert [page.stem for page in PAGES if f"docs/{page.name})" not in readme] == ["index"]


def test_the_quickstart_to_a_cluster_names_targets_files_and_values_that_exist() -> None:
    """tests/cluster/test_quickstart.py runs it, where there is a cluster."""
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    values = yaml.safe_load((ROOT / "charts/dllm-operator/values.yaml").read_text())
    assert phony is not None
    programs = set()
    for words in quickstart("Cluster"):
        programs.add(words[0])
        if words[0] == "make":
            assert words[1] in phony[1].split()
        for word in words:
            if word.startswith(("examples/", "charts/")):
                assert (ROOT / word).exists(), word
        for setting in [after for word, after in pairwise(words) if word == "--set"]:
            group, _, name = setting.partition("=")[0].partition(".")
            assert name in values[group], setting
    assert programs == {"make", "docker", "helm", "kubectl", "curl"}


def test_what_the_quickstart_plans_fits_and_is_what_it_serves(tmp_path: Path) -> None:
    """Of sizes as the hub has them; tests/test_walkthroughs.py runs it with a small model's."""
    lines = [words[1:] for words in quickstart("One GPU") if words[0] == ".venv/bin/dllm"]
    (plan,) = [words for words in lines if words[0] == "plan"]
    (serve,) = [words for words in lines if words[0] == "serve"]
    memory = plan.index("--gpu-memory")
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[plan[1]]))

    result = CliRunner().invoke(cli, ["plan", str(tmp_path), *plan[2:]])

    assert result.exit_code == 0, result.output
    assert [*plan[1:memory], *plan[memory + 2 :]] == serve[1:]


def shown_plans() -> list[tuple[str, str, str]]:
    return CONSOLE.findall((DOCS / "capacity.md").read_text())


def test_every_shown_plan_is_read() -> None:
    assert len(shown_plans()) == (DOCS / "capacity.md").read_text().count("```console") == 5


@pytest.mark.parametrize(("model", "flags", "output"), shown_plans(), ids=[plan[1] for plan in shown_plans()])
def test_a_shown_plan_is_what_the_command_prints(model: str, flags: str, output: str, tmp_path: Path) -> None:
    """Of a config.json with the hub's sizes, as the hub is not asked."""
    config: dict[str, Any] = CONFIGS[model]
    (tmp_path / "config.json").write_text(json.dumps(config))

    result = CliRunner().invoke(
        cli,
        ["plan", str(tmp_path), "--served-model-name", model, *shlex.split(flags)],
        prog_name="dllm",
        env={"COLUMNS": "80"},
    )

    printed = [line.strip() for line in result.output.splitlines() if line.strip()]
    assert printed == [line.strip() for line in output.splitlines() if line.strip()]


def test_flags_that_stand_for_another_engines_are_ours() -> None:
    serve = CliRunner().invoke(cli, ["serve", "--help"]).output
    table = [line.split(" | ") for line in (DOCS / "migrating.md").read_text().splitlines()]
    ours = [flag for row in table if len(row) == 4 for flag in re.findall(r"--[\w-]+", row[2])]

    assert len(ours) > 10
    assert {flag for flag in ours if flag not in serve} == set()
