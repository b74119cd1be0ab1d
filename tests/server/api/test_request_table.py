"""The table of requests, row by row, against the embedded model behind ``dllm serve``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dllm_server.models.source import EMBEDDED_DIRECTORY
from real_server import RealServer
from request_table import TABLE, Answer, Row

# The embedded model's own, and what it lacks: arguments, and messages that it refuses.
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if greeting is defined %}{{ greeting }}{% endif %}"
    "{% if reasoning_effort is defined %}{{ reasoning_effort }}{% endif %}"
    "{% if forbidden is defined %}{{ raise_exception('no ' + forbidden + ' here') }}{% endif %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_checkpoint(directory: Path) -> Path:
    """The embedded model with ``TEMPLATE``."""
    for file in EMBEDDED_DIRECTORY.iterdir():
        (directory / file.name).symlink_to(file)
    config = json.loads((EMBEDDED_DIRECTORY / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").unlink()
    (directory / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with RealServer(
        "--block-length", "4", model=str(make_checkpoint(tmp_path_factory.mktemp("model")))
    ) as started:
        yield started


def ask(server: RealServer, row: Row) -> Answer:
    # JSON in ASCII carries lone surrogates, which the client's own encoder refuses.
    content = json.dumps(row.body).encode("ascii")
    response = server.http.post(row.path, content=content)
    headers = dict(response.headers)
    if response.headers["content-type"].startswith("text/event-stream"):
        lines = [
            line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")
        ]
        assert lines.pop() == "[DONE]"
        return Answer(response.status_code, headers, chunks=[json.loads(line) for line in lines])
    return Answer(response.status_code, headers, body=response.json())


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.label)
def test_a_request_of_the_table_has_its_outcome(server: RealServer, row: Row) -> None:
    answer = ask(server, row)

    if row.names is None:
        assert answer.status == 200, answer.body
        assert row.shows(answer), answer.body or answer.chunks
    else:
        error: dict[str, Any] = answer.body["error"]
        assert (answer.status, error["type"], error["param"]) == (400, "invalid_request_error", row.names)
        assert row.names in error["message"]
        assert row.code in (None, error["code"])
