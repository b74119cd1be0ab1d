from __future__ import annotations

import json
from typing import Any

import pytest
from scripted_server import ScriptedServer

CHAT = {"messages": [{"role": "user", "content": "t1 t2"}], "max_tokens": 4}
COMPLETION = {"prompt": "t1 t2", "max_tokens": 4}


@pytest.fixture(scope="module")
def server() -> Any:
    with ScriptedServer() as running:
        yield running


def post(server: ScriptedServer, path: str, **body: Any) -> tuple[int, Any]:
    response = server.http.post(path, content=json.dumps(body))
    content = response.json()
    return response.status_code, content.get("error", content)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best_of", 2),
        ("frequency_penalty", 0.5),
        ("functions", [{"name": "f"}]),
        ("logit_bias", {"5": 1}),
        ("min_p", 0.1),
        ("parallel", 1),
        ("presence_penalty", -1),
        ("tool_choice", "required"),
        ("tools", [{"type": "function", "function": {"name": "look"}}]),
        ("top_logprobs", 3),
        ("frequency_penalty", False),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_an_unsupported_parameter_is_a_400_that_names_it(
    server: ScriptedServer, path: str, name: str, value: Any
) -> None:
    body = CHAT if "chat" in path else COMPLETION

    status, error = post(server, path, **body, **{name: value})

    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", name)
    assert name in error["message"]


@pytest.mark.parametrize(
    "neutral",
    [
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": None, "logit_bias": {}},  # noqa: F601
        {"user": "someone", "metadata": {"a": "b"}, "store": False, "best_of": 1},
        {"tools": [], "tool_choice": "none", "functions": None, "response_format": {"type": "text"}},
        {"n": None, "stop": None, "seed": None, "temperature": None, "stream": None, "stream_options": None},
        {"service_tier": "auto", "safety_identifier": "x", "prompt_cache_key": "y", "top_logprobs": 0},
    ],
)
def test_parameters_that_ask_for_nothing_pass(server: ScriptedServer, neutral: dict[str, Any]) -> None:
    assert post(server, "/v1/chat/completions", **CHAT, **neutral)[0] == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": True}, "n"),
        ({"n": "2"}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"stop": ["a"] * 65}, "stop"),
        ({"stop": ""}, "stop.0"),
        ({"stop": 5}, "stop"),
        ({"seed": 2**70}, "seed"),
        ({"logprobs": 6}, "logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [1024]}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"model": 5}, "model"),
        ({"diffusion": 5}, "diffusion"),
        ({"diffusion": {"steps": 5}}, "diffusion.steps"),
        ({"diffusion": {"block_length": 0}}, "diffusion.block_length"),
        ({"diffusion": {"block_length": "8"}}, "diffusion.block_length"),
        ({"diffusion": {"refresh_interval": 0}}, "diffusion.refresh_interval"),
        ({"diffusion": {"unmasking": {"strategy": "magic"}}}, "diffusion.unmasking.strategy"),
        ({"diffusion": {"unmasking": {"strategy": "quota", "value": 0.5}}}, "diffusion.unmasking"),
        ({"diffusion": {"confidence": "gut"}}, "diffusion.confidence"),
        ({"diffusion": {"retention_ratio": 1.5}}, "diffusion.retention_ratio"),
    ],
)
def test_a_bad_value_is_a_400_that_names_its_field(
    server: ScriptedServer, body: dict[str, Any], param: str
) -> None:
    status, error = post(server, "/v1/completions", **(COMPLETION | body))

    assert (status, error["param"]) == (400, param)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hello", "messages"),
        ([{"role": "tool", "content": "x"}], "messages.0.role"),
        ([{"role": "user"}], "messages.0.content"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "messages.0.content.0.type",
        ),
        ([{"role": "user", "content": "x", "mood": "good"}], "messages.0.mood"),
        ([{"role": "user", "content": ""}], "messages"),
    ],
)
def test_bad_messages_are_a_400_that_names_the_place(
    server: ScriptedServer, messages: Any, param: str
) -> None:
    status, error = post(server, "/v1/chat/completions", messages=messages)

    assert (status, error["param"]) == (400, param)


def test_text_parts_and_a_developer_are_read_as_text_and_system(server: ScriptedServer) -> None:
    parts = [{"type": "text", "text": "t1"}, {"type": "text", "text": "t2"}]
    messages = [{"role": "developer", "content": "t7"}, {"role": "user", "content": parts}]

    status, body = post(server, "/v1/chat/completions", messages=messages, return_token_ids=True)

    assert (status, body["choices"][0]["prompt_token_ids"]) == (200, [7, 1, 2])


def test_an_answer_copied_into_the_conversation_is_accepted(server: ScriptedServer) -> None:
    message = post(server, "/v1/chat/completions", **CHAT)[1]["choices"][0]["message"]

    status, _ = post(server, "/v1/chat/completions", messages=[*CHAT["messages"], message])

    assert status == 200


def test_tokenize_takes_a_prompt_or_messages(server: ScriptedServer) -> None:
    assert post(server, "/tokenize", prompt="t1 t2")[1]["tokens"] == [1, 2]
    assert post(server, "/tokenize", messages=CHAT["messages"])[1]["count"] == 2
    for body in ({}, {"messages": []}, {"prompt": "t1", "messages": CHAT["messages"]}):
        assert post(server, "/tokenize", **body)[0] == 400


def test_stream_options_without_a_stream_are_refused(server: ScriptedServer) -> None:
    status, error = post(server, "/v1/completions", **COMPLETION, stream_options={"include_usage": True})

    assert (status, "stream_options" in error["message"]) == (400, True)


def test_two_different_lengths_are_refused(server: ScriptedServer) -> None:
    assert post(server, "/v1/chat/completions", **CHAT, max_completion_tokens=5)[0] == 400


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"n": 1' + b"0" * 5000 + b"}",
        b'{"\\ud800": 1}',
    ],
)
def test_a_body_that_is_no_request_is_a_400(server: ScriptedServer, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}

    response = server.http.post("/v1/completions", content=content, headers=headers)

    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


def test_infinity_and_nan_are_refused(server: ScriptedServer) -> None:
    for field in (
        '"temperature": NaN',
        '"diffusion": {"unmasking": {"strategy": "factor", "value": Infinity}}',
    ):
        content = f'{{"prompt": "t1", {field}}}'
        assert server.http.post("/v1/completions", content=content).status_code == 400


def test_a_body_over_the_limit_is_a_413_however_it_is_sent() -> None:
    with ScriptedServer(max_body_bytes=1000) as server:
        announced = server.http.post("/v1/completions", content=b"x" * 1001)
        chunked = server.http.post("/v1/completions", content=iter([b"x" * 600] * 3))

        for response in (announced, chunked):
            assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")
        assert server.http.post("/v1/completions", json=COMPLETION).status_code == 200


@pytest.mark.parametrize("path", ["/nope", "/v1/nope", "/v1/completions/"])
def test_an_unknown_path_is_a_404_in_the_same_shape(server: ScriptedServer, path: str) -> None:
    response = server.http.get(path)

    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_a_wrong_method_is_a_405_in_the_same_shape(server: ScriptedServer) -> None:
    response = server.http.get("/v1/completions")

    assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")


def test_every_request_field_is_described(server: ScriptedServer) -> None:
    schemas = server.http.get("/openapi.json").json()["components"]["schemas"]
    chat = schemas["ChatCompletionRequest"]["properties"]
    parts = [
        chat,
        schemas["CompletionRequest"]["properties"],
        schemas["StreamOptions"]["properties"],
        schemas["UnmaskingSettings"]["properties"],
    ]

    fields = [(name, field) for part in parts for name, field in part.items()]

    assert [name for name, field in fields if not field.get("description")] == []
    assert "block_length" in chat["diffusion"]["properties"]
