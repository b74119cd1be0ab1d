"""/v1/messages through the real ``anthropic`` client: text, calls, thoughts, streams, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from dllm_server.engine.requests.messages import FailureReason, FinishReason
from dllm_server.models.tokenizer import Tokenizer
from pydantic import TypeAdapter
from scripted_engine import failed
from scripted_server import ScriptedServer
from tool_server import prompt_of, saying, serving
from tool_templates import CALL, LOOK, make_tokenizer

from tests.server.api.event_frames import events_in

TOOL: Any = {
    "name": "look",
    "description": "Looks around.",
    "input_schema": LOOK["function"]["parameters"],
    "cache_control": {"type": "ephemeral"},
}
HISTORY: Any = [
    {"role": "user", "content": "Where?"},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "A map helps.", "signature": "s"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": "Lyon"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "call_1",
                "content": [{"type": "text", "text": "A bakery."}],
            },
            {"type": "text", "text": "And now?"},
        ],
    },
]
EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return make_tokenizer(tmp_path_factory.mktemp("hermes"))


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    with serving(tokenizer, saying(tokenizer, "Hello.")) as started:
        yield started


def client_of(server: ScriptedServer, key: str = "none") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0, timeout=300)


def ask(server: ScriptedServer, **body: Any) -> Message:
    asked = {"model": "tiny", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]} | body
    answer: Message = client_of(server).messages.create(**({"model": server.service.model_name} | asked))
    return answer


def body_of(server: ScriptedServer, **more: Any) -> dict[str, Any]:
    asked = {"max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
    return {name: value for name, value in (asked | more).items() if value is not None}


def test_a_message_is_what_the_client_reads(server: ScriptedServer) -> None:
    message = ask(server, model=server.service.model_name, system="Be brief.", metadata={"user_id": "a"})

    assert [block.to_dict() for block in message.content] == [
        {"type": "text", "text": "Hello.", "citations": None}
    ]
    assert (message.stop_reason, message.role, message.type) == ("end_turn", "assistant", "message")
    assert message.usage.input_tokens == len(server.engine.requests[-1].prompt)
    assert message.usage.output_tokens > 0
    Message.model_validate(message.to_dict(), strict=True)


def test_calls_and_thoughts_are_blocks(tokenizer: Tokenizer) -> None:
    said = f"<think>A map.</think>I look.{CALL}{CALL}"
    with serving(tokenizer, saying(tokenizer, said)) as server:
        message = ask(server, model=server.service.model_name, tools=[TOOL])

    thoughts, text, *calls = message.content
    assert (thoughts.type, thoughts.thinking) == ("thinking", "A map.")  # type: ignore[union-attr]
    assert (text.type, text.text) == ("text", "I look.")  # type: ignore[union-attr]
    assert [(call.type, call.name, call.input) for call in calls] == [  # type: ignore[union-attr]
        ("tool_use", "look", {"at": "Lyon"})
    ] * 2
    assert len({call.id for call in calls}) == 2  # type: ignore[union-attr]
    assert message.stop_reason == "tool_use"


@pytest.mark.parametrize("block_length", [1, 4, 64])
def test_streamed_events_add_up_to_the_whole(tokenizer: Tokenizer, block_length: int) -> None:
    said = f"<think>A map.</think>I look.{CALL}"
    with serving(tokenizer, saying(tokenizer, said)) as server:
        asked: Any = {
            "model": server.service.model_name,
            "max_tokens": 100,
            "messages": [{"role": "user", "content": "Hi"}],
            "tools": [TOOL],
            "extra_body": {"diffusion": {"block_length": block_length}},
        }
        whole = client_of(server).messages.create(**asked)
        with client_of(server).messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
        body = asked | {"stream": True} | asked.pop("extra_body")
        body.pop("extra_body", None)
        response = server.http.post("/v1/messages", json=body)

    def told(message: Any) -> Any:
        blocks = [block.to_dict() for block in message.content]
        return [{name: block[name] for name in block if name != "id"} for block in blocks]

    events = events_in(response.text)
    assert told(streamed) == told(whole)
    assert (streamed.stop_reason, streamed.usage.output_tokens) == ("tool_use", whole.usage.output_tokens)
    assert [event["type"] for event in events][:1] == ["message_start"]
    assert [event["type"] for event in events][-2:] == ["message_delta", "message_stop"]
    for event in events:
        EVENTS.validate_python(event)
    starts = [event["index"] for event in events if event["type"] == "content_block_start"]
    stops = [event["index"] for event in events if event["type"] == "content_block_stop"]
    assert starts == stops == [0, 1, 2]


def test_a_conversation_goes_into_the_template(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    system: Any = [
        {"type": "text", "text": "Be", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "brief."},
    ]

    ask(server, model=server.service.model_name, system=system, tools=[TOOL], messages=HISTORY)
    prompt = prompt_of(server, tokenizer)
    counted = client_of(server).messages.count_tokens(
        model=server.service.model_name, system=system, tools=[TOOL], messages=HISTORY
    )

    parts = [
        "Be\nbrief.",
        "Where?",
        "A map helps.",
        "I look.",
        "Lyon",
        "<|tool|>A bakery.",
        "<|user|>And now?",
    ]
    places = [prompt.index(part) for part in parts]
    assert places == sorted(places)
    assert prompt.endswith("<|assistant|>")
    assert counted.input_tokens == len(server.engine.requests[-1].prompt)


def test_a_turn_of_the_assistant_at_the_end_goes_on(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    turns: Any = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well"}]

    ask(server, model=server.service.model_name, messages=turns)

    assert prompt_of(server, tokenizer).endswith("<|assistant|>Well")


def test_why_it_ends_is_told(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    stopped = ask(server, model=server.service.model_name, stop_sequences=["ll"])
    with serving(tokenizer, saying(tokenizer, "Hello.", reason=FinishReason.LENGTH)) as other:
        cut = ask(other, model=other.service.model_name, max_tokens=5)

    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "ll")
    assert (cut.stop_reason, cut.stop_sequence) == ("max_tokens", None)


def saying_of(*blocks: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": [*blocks]}]}


USE: dict[str, Any] = {"type": "tool_use", "id": "a", "name": "b", "input": {}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
    (saying_of({"type": "image", "source": {}}), "messages.0.content.0.type"),
    (saying_of({"type": "tool_result"}), "messages.0.content.0.tool_use_id"),
    (saying_of(USE), "messages.0.content.0"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
    ({"mcp_servers": [{}]}, "mcp_servers"),
    ({"output_config": {"format": {}}}, "output_config"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tool_choice": {"type": "tool", "name": "x"}, "tools": [TOOL]}, "tool_choice"),
    ({"n": 2}, "n"),
]


@pytest.mark.parametrize(("body", "path"), REFUSED)
def test_what_is_not_served_is_named(server: ScriptedServer, body: dict[str, Any], path: str) -> None:
    response = server.http.post("/v1/messages", json=body_of(server, **body))

    error = response.json()
    assert (response.status_code, error["type"], error["error"]["type"]) == (
        400,
        "error",
        "invalid_request_error",
    )
    assert path in error["error"]["message"]


def test_failures_are_of_the_clients_types(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with serving(tokenizer, saying(tokenizer, "Hello.")) as server, pytest.raises(anthropic.NotFoundError):
        ask(server, model="other")
    keys = tmp_path / "keys"
    keys.write_text("right\n")
    with serving(tokenizer, saying(tokenizer, "Hello."), api_keys_file=keys) as server:
        asked: Any = {"model": server.service.model_name, "max_tokens": 9, "messages": HISTORY[:1]}
        with pytest.raises(anthropic.AuthenticationError):
            client_of(server, "wrong").messages.create(**asked)
        assert client_of(server, "right").messages.create(**asked).content


def test_a_stream_that_fails_says_so(tokenizer: Tokenizer) -> None:
    def script(request: Any) -> Any:
        steps = saying(tokenizer, "Hello there.")(request)
        return [steps[0], failed(request, FailureReason.OUT_OF_MEMORY)]

    with serving(tokenizer, script) as server:
        asked: Any = {"model": server.service.model_name, "max_tokens": 9, "messages": HISTORY[:1]}
        client = client_of(server)
        with (
            pytest.raises(anthropic.APIStatusError, match="scripted"),
            client.messages.stream(**asked) as stream,
        ):
            stream.get_final_message()
