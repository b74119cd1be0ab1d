"""Bodies that are too large, compressed, cut too finely, or no JSON."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterable, MutableMapping
from itertools import pairwise
from typing import Annotated, Any

import pytest
from dllm_server.api.guards.body_limit import BodyLimit
from dllm_server.api.guards.body_shape import (
    LARGE_BYTES,
    LARGE_CONTAINERS,
    LARGE_VALUES,
    MOST_CONTAINERS,
    MOST_STRINGS,
    MOST_VALUES,
    BodyShape,
)
from dllm_server.api.guards.text_workers import TextWorkers
from dllm_server.api.routes.named_body import named_body_route, read_json
from dllm_server.api.schemas.base import RequestModel
from dllm_server.api.schemas.errors import ApiError
from dllm_server.settings import UnknownParameters
from fastapi import APIRouter, FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator
from raw_http import connect, read_to_end, read_until, request_bytes
from scripted_server import ScriptedServer, eventually

BODY = {"prompt": [1, 2], "max_tokens": 2}


def refusal(body: bytes, cuts: Iterable[int] = ()) -> str | None:
    """Why a body is refused that arrives in pieces, cut at these places."""
    shape = BodyShape()
    try:
        for start, end in pairwise([0, *sorted(cuts), len(body)]):
            shape.add(body[start:end])
    except ApiError as error:
        assert (error.status, error.body.error.code) == (400, "too_many_values")
        return str(error)
    return None


TOO_FINE = {
    "lists": b'{"prompt": [' + b"[1]," * MOST_CONTAINERS + b"[1]]}",
    "objects": json.dumps({"messages": [{"role": "user", "content": "x"}] * MOST_CONTAINERS}).encode(),
    "names": json.dumps({f"k{index}": 0 for index in range(MOST_STRINGS + 1)}).encode(),
    "strings that end in a backslash": b'{"prompt": [' + b'"\\\\", ' * (MOST_STRINGS + 1) + b'""]}',
    "numbers": json.dumps({"prompt": [1] * (MOST_VALUES + 2)}).encode(),
}
COARSE = {
    "a text of brackets": json.dumps({"prompt": "{[," * 500_000}).encode(),
    "a text of quotes": json.dumps({"prompt": 'print("x")\n' * 200_000}).encode(),
    "a text of pairs": json.dumps({"prompt": '\\"' * 300_000 + "[" * MOST_CONTAINERS}).encode(),
    "a text of backslashes": json.dumps({"prompt": "\\" * 500_000 + "[" * MOST_CONTAINERS}).encode(),
    "many messages": json.dumps(
        {"messages": [{"role": "user", "content": "[1]"}] * (MOST_CONTAINERS - 2)}
    ).encode(),
    "many token ids": json.dumps({"prompt": [1] * MOST_VALUES}).encode(),
}


PIECES = pytest.mark.parametrize("piece_bytes", [997, 65_536, 10**9])


@PIECES
@pytest.mark.parametrize("name", TOO_FINE)
def test_a_body_cut_too_finely_is_refused_before_it_is_parsed(name: str, piece_bytes: int) -> None:
    body = TOO_FINE[name]

    assert refusal(body, range(piece_bytes, len(body), piece_bytes)) is not None


@PIECES
@pytest.mark.parametrize("name", COARSE)
def test_what_stands_in_a_text_does_not_count(name: str, piece_bytes: int) -> None:
    body = COARSE[name]

    assert refusal(body, range(piece_bytes, len(body), piece_bytes)) is None


def test_a_body_that_is_not_utf_8_is_refused_since_its_values_cannot_be_counted() -> None:
    hidden = '{"prompt": "\\"", "x": [' + "[]," * MOST_CONTAINERS + "[]]}"
    with ScriptedServer() as server:
        for encoding in ("utf-16", "utf-16-le", "utf-32"):
            response = server.http.post("/v1/completions", content=hidden.encode(encoding))

            assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")


JSON = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(alphabet='a"\\[{,', max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='k"\\', max_size=3), inner),
    max_leaves=30,
)


def containers_of(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(containers_of, value))
    if isinstance(value, dict):
        return 1 + sum(map(containers_of, value.values()))
    return 0


def strings_of(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(strings_of, value))
    if isinstance(value, dict):
        return len(value) + sum(map(strings_of, value.values()))
    return isinstance(value, str)


@settings(deadline=None, max_examples=50)
@given(value=JSON, cuts=st.lists(st.integers(0, 200)))
def test_what_is_counted_is_what_the_json_holds_however_it_is_cut(value: Any, cuts: list[int]) -> None:
    begun = b"[" + json.dumps(value).encode()
    for filler, most in (
        (b",[]", MOST_CONTAINERS - 1 - containers_of(value)),
        (b',""', MOST_STRINGS - strings_of(value)),
    ):
        assert refusal(begun + filler * most + b"]", cuts) is None
        assert refusal(begun + filler * (most + 1) + b"]", cuts) is not None


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd"])
def test_a_compressed_body_is_a_415(encoding: str) -> None:
    with ScriptedServer() as server:
        content = gzip.compress(json.dumps(BODY).encode())
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        response = server.http.post("/v1/completions", content=content, headers=headers)

        assert (response.status_code, response.json()["error"]["code"]) == (415, "compressed_body")
        identity = {"Content-Encoding": "identity"}
        assert server.http.post("/v1/completions", json=BODY, headers=identity).status_code == 200


def test_text_behind_the_json_is_a_400() -> None:
    with ScriptedServer() as server:
        content, headers = json.dumps(BODY).encode() + b" x", {"Content-Type": "application/json"}
        response = server.http.post("/v1/completions", content=content, headers=headers)

        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")


def test_a_chunked_body_is_read_up_to_the_limit() -> None:
    def chunks(size: int) -> Any:
        content = json.dumps(BODY | {"user": "x" * size}).encode()
        return (content[start : start + 7] for start in range(0, len(content), 7))

    with ScriptedServer(max_body_bytes=1024) as server:
        headers = {"Content-Type": "application/json"}
        taken = server.http.post("/v1/completions", content=chunks(20), headers=headers)
        refused = server.http.post("/v1/completions", content=chunks(1100), headers=headers)

        assert (taken.status_code, refused.status_code) == (200, 413)


def test_a_client_that_asks_first_sends_its_body_when_told_and_not_when_refused() -> None:
    whole = request_bytes(body=BODY, Expect="100-continue", Connection="close")
    head, body = whole.split(b"\r\n\r\n")
    with ScriptedServer(max_body_bytes=1024) as server:
        with connect(server.url) as connection:
            connection.sendall(head + b"\r\n\r\n")
            assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(body)
            assert read_to_end(connection).startswith(b"HTTP/1.1 200 OK\r\n")
        with connect(server.url) as connection:
            announced = request_bytes(
                body=BODY | {"user": "x" * 1100}, Expect="100-continue", Connection="close"
            )
            connection.sendall(announced.split(b"\r\n\r\n")[0] + b"\r\n\r\n")
            assert read_to_end(connection).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_leaves_while_it_sends_its_body_is_counted_and_not_parsed() -> None:
    with ScriptedServer() as server:
        with connect(server.url) as connection:
            connection.sendall(request_bytes(body=BODY)[:-5])
        cancelled = 'dllm_requests_total{status="cancelled"} 1.0'
        eventually(lambda: cancelled in server.http.get("/metrics").text, "it is counted")
        assert not server.engine.requests


def test_a_body_cut_too_finely_is_refused_while_it_arrives() -> None:
    message = {"role": "user", "content": "x"}
    whole = request_bytes("/v1/chat/completions", {"messages": [message] * 100_000})
    with ScriptedServer() as server, connect(server.url) as connection:
        connection.sendall(whole[: 50 * MOST_CONTAINERS])

        assert b"too_many_values" in read_until(connection, b"}}")


async def read_in_turn(workers: TextWorkers, count: int) -> list[str]:
    """What happens, in order, when so many large bodies are read at once: works, and ticks of a timer."""
    events: list[str] = []

    def work() -> None:
        events.append("begun")
        time.sleep(0.05)
        events.append("done")

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.005)
            events.append("tick")

    ticking = asyncio.create_task(tick())
    await asyncio.gather(*(workers.read(work, is_large=True) for _ in range(count)))
    ticking.cancel()
    return events


def test_large_bodies_are_read_one_by_one_beside_the_loop_which_has_time_for_others_between_two() -> None:
    workers = TextWorkers()
    events = asyncio.run(read_in_turn(workers, 3))
    workers.close()
    works = [event for event in events if event != "tick"]
    begun, done = ([i for i, event in enumerate(events) if event == name] for name in ("begun", "done"))

    assert works == ["begun", "done"] * 3
    assert all("tick" in events[first:last] for first, last in zip(begun, done, strict=True))
    assert all("tick" in events[end:start] for end, start in zip(done, begun[1:], strict=False))


def test_a_large_body_that_nobody_reads_gives_up_its_turn() -> None:
    with ScriptedServer() as server:
        for path in ("/nothing", "/v1/models", "/nothing"):
            assert server.http.post(path, content=b"x" * (LARGE_BYTES + 1)).status_code in (404, 405)
        assert server.http.post("/v1/completions", json=BODY | {"prompt": "t1 " * 100_000}).status_code == 400


readers: list[str] = []


def note(value: Any) -> Any:
    readers.append(threading.current_thread().name.split("_")[0])
    return value


class NotedBody(RequestModel):
    prompt: Annotated[Any, AfterValidator(note)]


@pytest.mark.parametrize(
    ("prompt", "reader"),
    [
        ("x", "MainThread"),
        ("x" * LARGE_BYTES, "body"),
        ([[]] * LARGE_CONTAINERS, "body"),
        ([1] * (LARGE_VALUES + 2), "body"),
    ],
)
def test_a_body_that_takes_long_is_read_in_a_thread(prompt: Any, reader: str) -> None:
    workers = TextWorkers()
    router = APIRouter(route_class=named_body_route(UnknownParameters.REFUSE, workers))

    @router.post("/")
    async def answer(body: NotedBody) -> None:
        assert body.prompt == prompt

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": json.dumps({"prompt": prompt}).encode(), "more_body": False}

    sent: list[Any] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    app = FastAPI(strict_content_type=False)
    app.include_router(router)
    app.add_middleware(BodyLimit, limit_bytes=10**7)
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    readers.clear()
    asyncio.run(app(scope, receive, send))
    workers.close()

    assert readers == [reader]  # and once
    assert sent[0]["status"] == 200


def test_a_fault_in_a_large_body_is_told_as_in_a_small_one() -> None:
    with ScriptedServer() as server:

        def told(content: bytes) -> Any:
            answer = server.http.post(
                "/v1/completions", content=content, headers={"Content-Type": "application/json"}
            )
            return answer.status_code, answer.json()

        for fault in (b'"unknown": 1}', b'"n": 0}', b'"n": }', b'"user": "\xff"}', b'"prompt": ""}'):
            assert told(b'{"prompt": "x", ' + fault) == told(b'{"prompt": "x", ' + b" " * LARGE_BYTES + fault)


def outcome(read: Callable[[bytes], Any], content: bytes) -> str:
    try:
        return repr(read(content))
    except (ValueError, RecursionError) as error:
        return repr(error)


ODD_JSON = (
    *(b"-0", b"-0.0", b"1e400", b"-1e-400", b"NaN", b"-Infinity", b"nan", b"+1", b"01", b"1.", b".5", b"1_0"),
    *(b"123456789012345678901234567890", b"1" * 5000, b"9007199254740993.0", b"4.9e-324"),
    *(rb'"\ud800"', rb'"\ud83d\ude00"', b'"\xed\xa0\x80"', b'"\xff"', b'"a\x01"', b'"\x7f"', rb'"\u12"'),
    *(b'{"a": 1, "b": 2, "a": 3}', b"[1,]", b'{"a": 1,}', b"", b" 1 ", b"\x0c1", b"1 x", b"\xef\xbb\xbf1"),
    *(b"[" * 300 + b"]" * 300, b"[" * 100_000, b"{a: 1}", b"True", b"/**/1"),
)


@pytest.mark.parametrize("content", ODD_JSON, ids=lambda content: repr(content[:20]))
def test_odd_json_is_read_as_python_reads_it(content: bytes) -> None:
    assert outcome(read_json, content) == outcome(json.loads, content)


@settings(deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    ascii_only=st.booleans(),
    place=st.integers(0, 60),
    put=st.binary(max_size=2),
)
def test_json_is_read_as_python_reads_it_whole_and_broken(
    value: Any, ascii_only: bool, place: int, put: bytes
) -> None:
    content = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    broken = content[:place] + put + content[place + 1 :]

    assert outcome(read_json, content) == outcome(json.loads, content)
    if b"\0" not in broken:  # bodies with one are refused before they are read
        assert outcome(read_json, broken) == outcome(json.loads, broken)
