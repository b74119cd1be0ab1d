"""Every example is what the custom resource definition says, as the API server reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import yaml

if TYPE_CHECKING:
    from conftest import Tools

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
CRD_FILE = ROOT / "charts" / "dllm-operator" / "files" / "crd.yaml"


def read(example: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(example.read_text()))


@pytest.fixture(scope="module")
def group(tools: Tools) -> Iterator[str]:
    """The definition under a group of the test's own, so that no other test and no operator sees it."""
    crd = yaml.safe_load(CRD_FILE.read_text())
    group = f"examples-{uuid4().hex[:8]}.{crd['spec']['group']}"
    name = f"{crd['spec']['names']['plural']}.{group}"
    crd["spec"]["group"], crd["metadata"]["name"] = group, name
    tools.check("kubectl", "create", "-f", "-", stdin=yaml.safe_dump(crd))
    tools.await_definition(name)
    yield group
    tools.run("kubectl", "delete", "crd", name, "--wait=false")


def apply(tools: Tools, resource: dict[str, Any], group: str) -> Any:
    version = resource["apiVersion"].split("/")[1]
    moved = resource | {"apiVersion": f"{group}/{version}"}
    command = ("kubectl", "apply", "--dry-run=server", "--namespace", "default", "-f", "-")
    return tools.run(*command, stdin=yaml.safe_dump(moved))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_accepted_by_the_api_server(tools: Tools, group: str, example: Path) -> None:
    done = apply(tools, read(example), group)

    assert done.returncode == 0, done.stderr


def test_a_field_that_does_not_exist_is_refused(tools: Tools, group: str) -> None:
    resource = read(ROOT / "examples" / "embedded-cpu.yaml")
    resource["spec"]["modle"] = resource["spec"]["model"]

    done = apply(tools, resource, group)

    assert done.returncode != 0
    assert "modle" in done.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_begins_with_what_it_shows(example: Path) -> None:
    assert example.read_text().startswith("# ")


def test_examples_have_names_of_their_own() -> None:
    names = [read(example)["metadata"]["name"] for example in EXAMPLES]

    assert len(names) == len(set(names))
