"""What users of other servers have reported, tried on a real one; numbers are those of tests/reports.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from real_server import RealServer

PROMPTS = [[5], [5, 6], [7, 8, 9], [10, 11, 12, 13, 14]]


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with RealServer("--block-length", "4") as started:
        yield started


def ask(server: RealServer, body: dict[str, Any]) -> list[Any]:
    """The choices of a whole or streamed answer, in order: token ids, logprobs, why it ended."""
    response = server.http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    if not body.get("stream"):
        chunks = [response.json()]
    else:
        lines = [line for line in response.text.splitlines() if line.startswith("data: {")]
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    choices: dict[int, Any] = {}
    for part in (choice for chunk in chunks for choice in chunk["choices"]):
        ids, logprobs, _ = choices.setdefault(part["index"], [[], [], None])
        ids += part.get("token_ids") or []
        logprobs += (part["logprobs"] or {}).get("token_logprobs", [])
        choices[part["index"]][2] = part["finish_reason"]
    return [choices[index] for index in sorted(choices)]


def test_requests_with_and_without_logprobs_side_by_side_answer_as_each_does_alone(
    server: RealServer,
) -> None:
    """Number 4."""
    bodies = [
        {
            "prompt": PROMPTS[number % 4],
            "max_tokens": 12,
            "temperature": 1,
            "seed": number,
            "return_token_ids": True,
            "n": 2 if number % 3 == 0 else 1,
            "stream": number % 4 < 2,
        }
        | ({"logprobs": number % 6} if number % 2 else {})
        for number in range(16)
    ]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda body: ask(server, body), bodies))

    alone = [ask(server, body) for body in bodies]

    for side_by_side, single in zip(together, alone, strict=True):
        for (ids, logprobs, reason), expected in zip(side_by_side, single, strict=True):
            assert [ids, reason] == [expected[0], expected[2]]
            assert logprobs == pytest.approx(expected[1], abs=1e-3)


def test_prompts_of_different_lengths_are_answered_in_order(server: RealServer) -> None:
    """Number 17."""
    asked = {"max_tokens": 8, "temperature": 1, "seed": 3, "return_token_ids": True}

    answer = server.complete(prompt=PROMPTS, n=4, **asked)

    choices = answer["choices"]
    assert [choice["index"] for choice in choices] == list(range(16))
    assert [choice["prompt_token_ids"] for choice in choices] == [
        prompt for prompt in PROMPTS for _ in range(4)
    ]
    assert answer["usage"]["prompt_tokens"] == sum(map(len, PROMPTS))
    assert choices[0]["token_ids"] == server.complete(prompt=PROMPTS[0], **asked)["choices"][0]["token_ids"]


@pytest.mark.parametrize("max_tokens", [1, 3, 4, 5, 9])
def test_usage_is_the_length_of_what_is_given_whatever_ends_it(server: RealServer, max_tokens: int) -> None:
    """Number 11: neither the canvas nor the block is shown beyond it."""
    free = server.complete(prompt=[5, 6], max_tokens=max_tokens, ignore_eos=True, return_token_ids=True)
    middle = free["choices"][0]["token_ids"][max_tokens // 2]
    ended = server.complete(
        prompt=[5, 6], max_tokens=max_tokens, stop_token_ids=[middle], ignore_eos=True, return_token_ids=True
    )

    for answer in (free, ended):
        assert answer["usage"]["completion_tokens"] == len(answer["choices"][0]["token_ids"]) <= max_tokens
    assert len(free["choices"][0]["token_ids"]) == max_tokens
    assert middle not in ended["choices"][0]["token_ids"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/complete", "/generate"])
def test_an_api_that_is_not_served_is_a_404_in_openais_shape(server: RealServer, path: str) -> None:
    response = server.http.post(path, json={"model": "x", "messages": [], "max_tokens": 1})

    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
