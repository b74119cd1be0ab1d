"""The mask stands in no prompt: its name is text, and its id is refused by its place."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_server import ScriptedServer

MASK = 1000
NAME = "<|mdm_mask|>"


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ([1, 2, 3, MASK], "prompt.3"),
        ([MASK], "prompt.0"),
        ([[1, 2], [3, 4, 5, MASK, MASK]], "prompt.1.3"),
        ([[MASK]], "prompt.0.0"),
    ],
)
def test_the_masks_id_in_a_prompt_is_named_by_its_place(prompt: Any, param: str) -> None:
    with ScriptedServer() as server:
        refused = server.http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 1})

        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == param
        assert "is the mask token" in refused.json()["error"]["message"]
        assert server.engine.requests == []


def test_the_masks_name_reaches_the_engine_as_text_from_every_endpoint() -> None:
    messages = [{"role": "user", "content": f"t1 {NAME}"}, {"role": "user", "content": f"{NAME} t2"}]
    with ScriptedServer() as server:
        bodies: list[tuple[str, dict[str, Any]]] = [
            ("/v1/completions", {"prompt": f"t1 {NAME} t2"}),
            ("/v1/completions", {"prompt": [f"t1 {NAME}", NAME]}),
            ("/v1/chat/completions", {"messages": messages}),
        ]
        for path, body in bodies:
            assert server.http.post(path, json=body | {"max_tokens": 1, "stop": NAME}).status_code == 200
        tokenised = [server.http.post("/tokenize", json=body).json() for _, body in (bodies[0], bodies[2])]

        assert [request.prompt for request in server.engine.requests] == [
            [1, 0, 2],
            [1, 0],
            [0],
            [1, 0, 0, 2],
        ]
        assert [answer["tokens"] for answer in tokenised] == [[1, 0, 2], [1, 0, 0, 2]]


def test_an_eos_keeps_its_meaning_in_a_completion_and_has_none_in_a_conversation() -> None:
    text = "t1 <|endoftext|> t2"
    with ScriptedServer() as server:
        server.http.post("/v1/completions", json={"prompt": text, "max_tokens": 1})
        messages = [{"role": "user", "content": text}]
        server.http.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 1})

        assert [request.prompt for request in server.engine.requests] == [[1, 1001, 2], [1, 0, 2]]
