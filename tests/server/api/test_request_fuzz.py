"""Any JSON value at any place of a request is an answer or a 400 in OpenAI's shape, never a server error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scripted_server import ScriptedServer
from test_request_names import PLACES, make_body

NAMES = sorted(
    (place, name) for place, names in PLACES.items() for name in names.fields | names.neutral.keys()
)
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**63, -(2**64), 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "\ud800", "\x00", "a" * 600),
    *([], [None], [[]], [[[[]]]], [0], [-1], [10**30], ["\ud800"], [{"role": "user", "content": "\ud800"}]),
    *({}, {"": None}, {"\ud800": 1}, {"type": "text"}, {"a": float("nan")}),
]
values = st.sampled_from(ODD) | st.recursive(
    st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


def post(server: ScriptedServer, path: str, content: bytes) -> None:
    response = server.http.post(path, content=content)
    assert response.status_code in (200, 400), (content[:300], response.text)
    if response.status_code == 400:
        assert response.json()["error"]["type"] == "invalid_request_error"


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(NAMES), values)
@example(("", "seed"), 2**64)
@example(("", "chat_template_kwargs"), {"x": "\ud800"})
@example(("messages.1", "name"), "\ud800")
@example(("diffusion.unmasking", "value"), 10**400)
def test_any_value_at_any_place_is_an_answer_or_a_400(
    server: ScriptedServer, place_and_name: tuple[str, str], value: Any
) -> None:
    place, name = place_and_name
    content = json.dumps(make_body(place, {name: value})).encode("ascii")

    post(server, "/v1/chat/completions", content)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["prompt", "max_tokens", "logprobs", "echo", "stop", "diffusion", "min_tokens"]), values
)
def test_any_value_in_a_completion_is_an_answer_or_a_400(
    server: ScriptedServer, name: str, value: Any
) -> None:
    content = json.dumps({"prompt": "t1", "max_tokens": 4} | {name: value}).encode("ascii")

    post(server, "/v1/completions", content)


@pytest.mark.parametrize("name", ["messages", "stream_options", "diffusion", "chat_template_kwargs", "stop"])
def test_deep_and_repeated_values_are_an_answer_or_a_400(server: ScriptedServer, name: str) -> None:
    messages = b'"messages": [{"role": "user", "content": "t1"}], "max_tokens": 4'
    quoted = f'"{name}"'.encode()
    for depth in (10, 300, 900, 5000):
        post(
            server, "/v1/chat/completions", b"{%s, %s: %s%s}" % (messages, quoted, b"[" * depth, b"]" * depth)
        )
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        post(server, "/v1/chat/completions", b"{%s, %s: %s}" % (messages, quoted, nested))
    post(
        server,
        "/v1/chat/completions",
        b'{%s, %s: 5, %s: null, %s: {"a": 1, "a": 2}}' % (messages, *[quoted] * 3),
    )
