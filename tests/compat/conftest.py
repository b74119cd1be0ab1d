"""One server, and one environment of clients, for all tests here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compat.environment import MISSING, NO_NODE, Clients, has_node, has_node_clients, is_installed
from tests.server.api.real_server import RealServer
from tests.server.api.tool_templates import make_tokenizer
from tests.server.checkpoints import Size, make_config, make_weights, write_config, write_shards

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
def node_clients(clients: Clients) -> Clients:
    """Likewise of Node.js; an error only where that is there."""
    if not has_node_clients():
        if os.environ.get("COMPAT") == "required" and has_node():
            pytest.fail(f"COMPAT=required, but {NO_NODE}")
        pytest.skip(NO_NODE)
    return clients


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


@pytest.fixture(scope="session")
def structured(
    clients: Clients, keys_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A model that says anything at all, so that what is right in its answers is the grammar's doing. Its
    template knows tools."""
    directory = tmp_path_factory.mktemp("model")
    size = Size(vocab_size=512, max_model_len=4096)
    write_config(directory, make_config(size) | {"mask_token_id": 1, "eos_token_id": 0})  # the tokenizer's
    write_shards(directory, make_weights(size), 1)
    make_tokenizer(directory)
    flags = ["--served-model-name", MODEL, "--api-keys-file", str(keys_file), "--block-length", "16"]
    with RealServer(*flags, model=str(directory)) as server:
        yield Served(server, server.url)
