"""What a client and its operator see of the prefix cache, over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from real_server import RealServer
from scripted_engine import FIXTURE

PROMPT = list(range(20, 60))
WHOLE_CHUNKS = 32  # of the prompt's 40 tokens, in pages of 16


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with RealServer("--max-num-seqs", "4", model=str(FIXTURE.parent / "sdar")) as started:
        yield started


def cached_tokens(server: RealServer, **body: Any) -> int:
    answer = server.complete(**{"prompt": PROMPT, "max_tokens": 4} | body)
    assert answer["usage"]["prompt_tokens"] == len(PROMPT)
    found: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return found


def test_only_requests_of_one_salt_find_each_others_prompts(server: RealServer) -> None:
    found = [cached_tokens(server, cache_salt=salt) for salt in ("a", "a", "b", "a", "b")]

    assert found == [0, WHOLE_CHUNKS, 0, WHOLE_CHUNKS, WHOLE_CHUNKS]


def test_of_several_choices_the_first_ones_hits_count(server: RealServer) -> None:
    assert cached_tokens(server, n=3, cache_salt="several") == 0
    assert cached_tokens(server, n=3, cache_salt="several") == WHOLE_CHUNKS


def test_chat_and_streams_tell_cached_tokens_too(server: RealServer) -> None:
    body = {
        "messages": [{"role": "user", "content": "one two three four five six seven eight nine ten"}],
        "max_tokens": 4,
        "cache_salt": "chat",
    }
    first, again = (server.http.post("/v1/chat/completions", json=body).json()["usage"] for _ in range(2))

    streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
    lines = server.http.post("/v1/chat/completions", json=streamed).text.split("\n\n")
    usage = json.loads(lines[-3].removeprefix("data: "))["usage"]

    assert first["prompt_tokens_details"] == {"cached_tokens": 0}
    assert again["prompt_tokens_details"] == {"cached_tokens": again["prompt_tokens"] // 16 * 16}
    assert usage == again


def test_metrics_count_tokens_of_the_cache_and_of_prefills(server: RealServer) -> None:
    names = [
        "dllm_prefix_cache_queried_tokens_total",
        'vllm:prefix_cache_queries_total{model_name="sdar"}',
        "dllm_prefix_cache_hit_tokens_total",
        'vllm:prefix_cache_hits_total{model_name="sdar"}',
        "dllm_prefix_cache_saved_tokens_total",
        'dllm_tokens_total{phase="prefill"}',
    ]
    block = 4
    before = [server.metric(name) for name in names]

    for _ in range(2):
        cached_tokens(server, cache_salt="metrics")

    queried, hit = 2 * len(PROMPT), WHOLE_CHUNKS
    forwarded = 2 * (len(PROMPT) + block) - hit  # the last piece of a prefill takes the first block along
    expected = [queried, queried, hit, hit, hit, forwarded]
    eventually(
        lambda: [server.metric(name) for name in names],
        [a + b for a, b in zip(before, expected, strict=True)],
    )
    assert server.metric("dllm_prefix_cache_pages") > 0


def test_a_client_that_leaves_gives_its_pages_back_and_leaves_its_prefix(server: RealServer) -> None:
    body = {"prompt": PROMPT, "max_tokens": 400, "stream": True, "cache_salt": "left", "ignore_eos": True}
    slow = {"diffusion": {"unmasking": {"strategy": "sequential"}}}
    cancelled = server.metric("dllm_engine_requests_cancelled_total")

    with server.http.stream("POST", "/v1/completions", json=body | slow) as answer:
        next(answer.iter_lines())
    names = ["dllm_engine_requests_cancelled_total", "dllm_requests_running", 'dllm_kv_pages{state="used"}']
    eventually(lambda: [server.metric(name) for name in names], [cancelled + 1, 0, 0])

    assert cached_tokens(server, cache_salt="left") == WHOLE_CHUNKS


def eventually(read: Callable[[], list[float]], expected: list[float]) -> None:
    """The engine tells its counts a few times a second."""
    deadline = time.monotonic() + 10
    while (found := read()) != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == expected
