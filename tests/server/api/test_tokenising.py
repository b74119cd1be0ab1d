"""Long texts hold up nobody: the loop runs, few are read at once, who leaves gives up a turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from dllm_server.models.chat_template import TemplateLook
from dllm_server.models.source import EMBEDDED_DIRECTORY
from dllm_server.models.tokenizer import FileTokenizer, Message, Tokenizer, load_tokenizer
from raw_http import connect, request_bytes
from scripted_engine import FIXTURE
from scripted_server import ScriptedServer, eventually

LONG = "t1 " * 30_000
MIDDLE = "t1 " * 1_000


class GatedTokenizer:
    """The fixture's tokenizer, which waits for the test's gate with texts that are not short."""

    has_text = True
    has_chat_template = False
    template = TemplateLook()

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun: list[int] = []  # characters
        self.now = self.most = 0
        self._lock = threading.Lock()
        self._inner = load_tokenizer(FIXTURE)

    def added_ids(self, names: Collection[str]) -> Mapping[str, int]:
        return {}

    def encode(self, text: str, **options: Any) -> list[int]:
        return self._gated(len(text), lambda: self._inner.encode(text, **options)[:8])

    def encode_chat(self, messages: Sequence[Message], **options: Any) -> list[int]:
        size = sum(len(message["content"]) for message in messages)
        return self._gated(size, lambda: self._inner.encode_chat(messages, **options)[:8])

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        return self._gated(len(token_ids), lambda: self._inner.decode(token_ids, **options))

    def _gated(self, size: int, work: Callable[[], Any]) -> Any:
        if size < 1000:
            return work()
        with self._lock:
            self.begun.append(size)
            self.now += 1
            self.most = max(self.most, self.now)
        self.gate.wait(20)
        with self._lock:
            self.now -= 1
        return work()


def chat(text: str) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], "max_tokens": 2}


def completion(text: str) -> tuple[str, dict[str, Any]]:
    return "/v1/completions", {"prompt": [text], "max_tokens": 2}


def tokenize(text: str) -> tuple[str, dict[str, Any]]:
    return "/tokenize", {"prompt": text}


def detokenize(text: str) -> tuple[str, dict[str, Any]]:
    return "/detokenize", {"tokens": [1] * len(text)}


def echo(text: str) -> tuple[str, dict[str, Any]]:
    return "/v1/completions", {"prompt": [1] * len(text), "echo": True, "max_tokens": 1}


def post(pool: ThreadPoolExecutor, server: ScriptedServer, asked: tuple[str, Any]) -> Future[httpx.Response]:
    path, body = asked
    return pool.submit(lambda: httpx.post(server.url + path, json=body, timeout=300))


@pytest.mark.parametrize("entry", [chat, completion, tokenize, detokenize, echo])
def test_the_loop_runs_while_a_text_is_read(entry: Callable[[str], Any]) -> None:
    tokenizer = GatedTokenizer()
    model = {"max_model_len": 100_000, "max_request_tokens": 100_000}
    with ScriptedServer(tokenizer=tokenizer, model=model) as server, ThreadPoolExecutor() as pool:
        reading = post(pool, server, entry(LONG))
        eventually(lambda: bool(tokenizer.begun), "the text is being read")

        assert server.http.get("/health").status_code == 200
        assert server.http.post("/v1/completions", json={"prompt": "t1"}).status_code == 200
        assert not reading.done()
        tokenizer.gate.set()
        assert reading.result().status_code == 200


def test_at_most_two_texts_are_read_at_once_and_a_long_one_does_not_hold_up_the_others() -> None:
    tokenizer = GatedTokenizer()
    with ScriptedServer(tokenizer=tokenizer) as server, ThreadPoolExecutor(16) as pool:
        long = [post(pool, server, tokenize(LONG)) for _ in range(4)]
        eventually(lambda: tokenizer.begun == [len(LONG)], "one long text is being read")
        middle = [post(pool, server, tokenize(MIDDLE)) for _ in range(4)]
        eventually(lambda: tokenizer.begun == [len(LONG), len(MIDDLE)], "and one in between")
        tokenizer.gate.set()

        assert [answer.result().status_code for answer in [*long, *middle]] == [200] * 8
        assert tokenizer.most == 2
        assert len(tokenizer.begun) == 8


def test_a_client_that_leaves_gives_up_its_turn() -> None:
    tokenizer = GatedTokenizer()
    with ScriptedServer(tokenizer=tokenizer) as server:
        path, body = completion(LONG)
        with ExitStack() as clients:
            for number in range(3):
                clients.enter_context(connect(server.url)).sendall(request_bytes(path, body))
                eventually(lambda: bool(tokenizer.begun), f"request {number} is there")
        cancelled = 'dllm_requests_total{status="cancelled"}'
        eventually(lambda: f"{cancelled} 3.0" in server.http.get("/metrics").text, "all three have left")
        tokenizer.gate.set()
        path, body = tokenize(LONG)
        server.http.post(path, json=body)

        assert len(tokenizer.begun) == 2
        assert not server.engine.requests


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("the text was read")


@pytest.mark.parametrize("token_id", [1, 10**14])
def test_token_ids_that_cannot_fit_are_refused_by_their_number(token_id: int) -> None:
    tokenizer = GatedTokenizer()
    with ScriptedServer(tokenizer=tokenizer) as server:
        mask = server.engine.model.mask_token_id
        body = {"prompt": [token_id, mask] * 2000, "echo": True, "max_tokens": 1}
        response = server.http.post("/v1/completions", json=body)

        assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert not tokenizer.begun


@pytest.mark.parametrize("entry", [chat, completion, tokenize])
def test_text_that_cannot_fit_never_reaches_the_tokenizer(entry: Callable[[str], Any]) -> None:
    tokenizer = load_tokenizer(EMBEDDED_DIRECTORY)
    with ScriptedServer(tokenizer=tokenizer) as server:
        tokenizer._backend = None  # type: ignore[attr-defined]
        path, body = entry("x" * 1_000_000)
        response = server.http.post(path, json=body)

        assert response.status_code == 400
        error = response.json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert "maximum context length" in error["message"]
        assert "prompt is too long" in error["message"]
        assert error["param"] in ("messages", "prompt")
        assert "characters are more than 512 tokens of this model" in error["message"]


@pytest.mark.parametrize("directory", [EMBEDDED_DIRECTORY, FIXTURE], ids=["embedded", "fixture"])
@pytest.mark.parametrize("work", ["encode", "decode"])
def test_the_interpreter_runs_other_threads_while_a_text_is_read(directory: Path, work: str) -> None:
    tokenizer: Tokenizer = load_tokenizer(directory)
    ids = tokenizer.encode("the quick brown fox 123 " * 4000)
    done = threading.Event()
    turns = 0

    def read() -> None:
        if work == "encode":
            tokenizer.encode("the quick brown fox 123 " * 40_000)
        else:
            tokenizer.decode(ids * 20)
        done.set()

    thread = threading.Thread(target=read)
    thread.start()
    while not done.wait(0.0005):
        turns += 1
    thread.join()

    assert turns > 5


class _Watched:
    """A part of the tokenizer in whose place it stands, without what makes an object for every token."""

    def __init__(self, part: Any, *hidden: str) -> None:
        self._part, self._hidden = part, hidden

    def __getattr__(self, name: str) -> Any:
        assert name not in self._hidden, f"{name} holds the interpreter's lock"
        return getattr(self._part, name)

    def encode_batch(self, *arguments: Any, **options: Any) -> list[Any]:
        assert "encode_batch" not in self._hidden, "the text was read with places"
        return [
            _Watched(found, "offsets", "tokens") for found in self._part.encode_batch(*arguments, **options)
        ]


def test_the_places_of_tokens_are_asked_one_by_one_and_only_where_a_special_token_is_named() -> None:
    tokenizer = load_tokenizer(EMBEDDED_DIRECTORY)
    assert isinstance(tokenizer, FileTokenizer)
    backend, mask = tokenizer._backend, tokenizer._fast.mask_token
    plain, named = "the quick brown fox", f"the {mask} fox"
    expected = [[tokenizer.encode(text), tokenizer.encode_chat(user(text))] for text in (plain, named)]

    tokenizer._backend = cast("Any", _Watched(backend, "encode_batch"))
    assert [tokenizer.encode(plain), tokenizer.encode_chat(user(plain))] == expected[0]
    tokenizer._backend = cast("Any", _Watched(backend))
    assert [tokenizer.encode(named), tokenizer.encode_chat(user(named))] == expected[1]


def user(content: str) -> list[Message]:
    return [{"role": "user", "content": content}]
