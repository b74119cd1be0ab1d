"""Schemas made to keep a server busy: they are refused or compiled within bounds, and nobody else waits."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
from dllm_server.models.source import EMBEDDED_DIRECTORY
from real_server import RealServer

from tests.server.schema_cases import FLAG, record

DEADLINE_SECONDS = 120.0


def endless(first: str) -> dict[str, Any]:
    """Compiles without end. ``first`` tells one from another."""
    return patterns(first, *(f".*{chr(97 + place)}.*" for place in range(24)))


def patterns(*all_of: str) -> dict[str, Any]:
    """Of an automaton whose states double with each of them."""
    return {"allOf": [{"type": "string", "pattern": pattern} for pattern in all_of]}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def doubled(names: int) -> dict[str, Any]:
    """Twice as large with each name, where references are written out."""
    twice = {f"d{place}": {"allOf": [{"$ref": f"#/$defs/d{place + 1}"}] * 2} for place in range(names)}
    return {"$ref": "#/$defs/d0", "$defs": twice | {f"d{names}": {"type": "string"}}}


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with RealServer(model=str(EMBEDDED_DIRECTORY)) as started:
        yield started


def ask(server: RealServer, schema: Any, **more: Any) -> httpx.Response:
    body = {"prompt": "a", "max_tokens": 8, "structured_outputs": {"json": schema}}
    return server.http.post("/v1/completions", json=body | more)


def compilers(server: RealServer) -> list[psutil.Process]:
    return [child for child in server.children() if "dllm_server.structure" in child.cmdline()]


def wait_for_compiler(server: RealServer, asked: Future[httpx.Response]) -> psutil.Process:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := compilers(server)):
        assert time.monotonic() < deadline and not asked.done()
        time.sleep(0.01)
    return found[0]


def test_health_and_free_requests_are_served_while_a_schema_compiles(server: RealServer) -> None:
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, server, endless("held.*"))
        compiler = wait_for_compiler(server, asked)
        compiler.suspend()  # it cannot end before the others are served
        try:
            assert server.http.get("/health").status_code == 200
            answer = server.complete(prompt="a", max_tokens=8, ignore_eos=True)
            assert answer["usage"]["completion_tokens"] == 8
            assert server.http.get("/ready").status_code == 200
            assert not asked.done()
        finally:
            compiler.resume()
        refused = asked.result()

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "grammar")


def test_a_compiler_that_had_to_be_ended_is_replaced(server: RealServer) -> None:
    answer = ask(server, FLAG)
    assert answer.status_code == 200, answer.text
    (before,) = compilers(server)

    refused = ask(server, endless("ended.*"))
    answer = ask(server, record(ok=FLAG), max_tokens=20)

    assert "takes more than 1 s" in refused.json()["error"]["message"]
    assert json.loads(answer.json()["choices"][0]["text"])["ok"] in (True, False)
    assert not before.is_running()
    assert [one.pid for one in compilers(server)] != [before.pid]


REFUSED = {
    "one megabyte": ({"enum": ["x" * 1000 + str(place) for place in range(1000)]}, "bytes"),
    "deep": (nested(900), "recursion|deep"),
    "patterns": (patterns(*(f".*{letter}.*" for letter in "abcdefghijkl")), "regex"),
    "own ancestor": ({"allOf": [{"$ref": "#"}]}, "Extension"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_is_too_much_is_refused(server: RealServer, name: str) -> None:
    schema, words = REFUSED[name]

    refused = ask(server, schema)

    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["message"]
    assert re.search(words, refused.json()["error"]["message"])


FOLLOWED = {
    "doubled": doubled(25),
    "pattern": {"type": "string", "pattern": "(a|a)*(.*a){200}.{40}"},
    "powers": {"type": "string", "pattern": "((a{1,999}){1,999}){1,999}"},
    "many": {"enum": [f"value {place}" for place in range(1500)]},
    "itself": {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"},
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_one_that_only_looks_hostile_is_followed(server: RealServer, name: str) -> None:
    assert ask(server, FOLLOWED[name]).status_code == 200
    assert server.http.get("/health").status_code == 200
