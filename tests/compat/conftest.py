"""One server, and one environment of clients, for all tests here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compat.environment import MISSING, Clients, is_installed
from tests.server.api.real_server import RealServer

KEY = "compat-key"
MODEL = "dllm"


@dataclass(frozen=True, slots=True)
class Served:
    """The embedded model behind a key; ``address`` is what a driver wants to know of it."""

    server: RealServer
    url: str
    key: str = KEY
    model: str = MODEL

    @property
    def address(self) -> tuple[str, str, str]:
        return self.url, self.key, self.model


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    """One skip without the environment; an error where COMPAT says that it must be there."""
    if not is_installed():
        if os.environ.get("COMPAT") == "required":
            pytest.fail(f"COMPAT=required, but {MISSING}")
        pytest.skip(MISSING)
    return Clients(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n")
    return keys


@pytest.fixture(scope="session")
def served(clients: Clients, keys_file: Path) -> Iterator[Served]:
    flags = ["--served-model-name", MODEL, "--api-keys-file", str(keys_file)]
    with RealServer(*flags, model="embedded") as server:
        server.http.headers["Authorization"] = f"Bearer {KEY}"
        yield Served(server, server.url)
