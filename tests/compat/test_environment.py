"""The environment of the clients holds what the extra ``compat`` pins."""

from __future__ import annotations

import json

import pytest

from tests.compat.environment import Clients, pinned

pytestmark = [pytest.mark.compat, pytest.mark.slow]


def test_the_clients_are_those_that_are_pinned(clients: Clients) -> None:
    wanted = pinned()
    program = (
        "import json, sys; from importlib.metadata import version; "
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )

    assert set(wanted) == {"guidellm", "langchain-openai", "litellm", "lm-eval", "openai"}
    assert json.loads(clients.run("python", "-c", program, *wanted)) == wanted
