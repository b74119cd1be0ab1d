"""The environments of the clients hold what is pinned."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.compat.environment import ENVIRONMENT, INSTRUCTOR, NODE, Clients, instructor_pinned, pinned

pytestmark = [pytest.mark.compat, pytest.mark.slow]


def installed(clients: Clients, names: Iterable[str], environment: Path) -> dict[str, str]:
    program = (
        "import json, sys; from importlib.metadata import version; "
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    versions: dict[str, str] = json.loads(
        clients.run("python", "-c", program, *names, environment=environment)
    )
    return versions


def test_the_clients_are_those_that_are_pinned(clients: Clients) -> None:
    wanted = pinned()

    assert set(wanted) == {
        *("guidellm", "langchain-openai", "litellm", "llm", "lm-eval", "openai", "pydantic-ai-slim")
    }
    assert installed(clients, wanted, ENVIRONMENT) == wanted


def test_instructor_is_the_one_that_is_pinned(clients: Clients) -> None:
    wanted = instructor_pinned()

    assert "instructor" in wanted
    assert installed(clients, wanted, INSTRUCTOR) == wanted


def test_the_clients_of_node_are_those_that_are_pinned(node_clients: Clients) -> None:
    wanted: dict[str, str] = json.loads((NODE / "package.json").read_text())["dependencies"]
    locked = json.loads((NODE / "node_modules" / ".package-lock.json").read_text())["packages"]

    assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted
