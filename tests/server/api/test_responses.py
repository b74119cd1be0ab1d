"""/v1/responses through the real ``openai`` client: text, calls, thoughts, streams, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from dllm_server.api.answers.response_writer import Event, ResponseWriter
from dllm_server.api.schemas.response_body import ResponseBody
from dllm_server.api.text.parts import Called, Part, Said, Thought
from dllm_server.engine.requests.messages import FailureReason, FinishReason
from dllm_server.models.tokenizer import Tokenizer
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from scripted_engine import Wait, failed
from scripted_server import ScriptedServer, eventually
from tool_server import client_of, prompt_of, saying, serving
from tool_templates import CALL, LOOK, make_tokenizer

TOOL: Any = {"type": "function", "strict": True} | LOOK["function"]
MADE_CALL: Any = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at": "Lyon"}'}
RESULT: Any = {"type": "function_call_output", "call_id": "call_1", "output": "A bakery."}
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return make_tokenizer(tmp_path_factory.mktemp("hermes"))


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    with serving(tokenizer, saying(tokenizer, "Hello.")) as started:
        yield started


@pytest.fixture
def client(server: ScriptedServer) -> openai.OpenAI:
    return client_of(server)


def refusal(server: ScriptedServer, **body: Any) -> dict[str, Any]:
    response = server.http.post("/v1/responses", json={"input": "Hi"} | body)
    error: dict[str, Any] = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error"), error
    return error


def events_of(server: ScriptedServer, **body: Any) -> list[dict[str, Any]]:
    """The data of a stream's events, each with the name that it says itself."""
    response = server.http.post("/v1/responses", json={"input": "Hi", "stream": True} | body)
    assert response.headers["content-type"].startswith("text/event-stream")
    frames = [frame.split("\n") for frame in response.text.strip().split("\n\n")]
    events = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name for name, _ in frames] == [f"event: {event['type']}" for event in events]
    return events


def test_a_text_is_one_message(server: ScriptedServer, tokenizer: Tokenizer, client: openai.OpenAI) -> None:
    server.engine.script = saying(tokenizer, "Hello.")

    answer: Any = client.responses.create(
        model="tiny", input="Hi", instructions="Be short.", metadata={"run": "1"}, store=True
    )

    Response.model_validate(answer.model_dump())
    assert (answer.output_text, answer.status, answer.incomplete_details) == ("Hello.", "completed", None)
    assert (answer.store, answer.metadata, answer.instructions) == (False, {"run": "1"}, "Be short.")
    assert answer.usage.input_tokens == len(server.engine.requests[-1].prompt)
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.dllm_stats["forward_passes"] > 0
    assert prompt_of(server, tokenizer) == "<|system|>Be short.<|end|><|user|>Hi<|end|><|assistant|>"


def test_a_cut_answer_is_incomplete(
    server: ScriptedServer, tokenizer: Tokenizer, client: openai.OpenAI
) -> None:
    server.engine.script = saying(tokenizer, "Hel", reason=FinishReason.LENGTH)

    answer = client.responses.create(model="tiny", input="Hi", max_output_tokens=3)

    assert server.engine.requests[-1].max_tokens == 3
    assert answer.incomplete_details is not None
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output[0].status == "incomplete"  # type: ignore[union-attr]


def test_a_conversation_of_calls_goes_round(
    server: ScriptedServer, tokenizer: Tokenizer, client: openai.OpenAI
) -> None:
    server.engine.script = saying(tokenizer, f"<think>Hm.</think>I look.{CALL}", "A bakery is.")
    asked: Any = [{"role": "user", "content": "What is in Lyon?"}]

    first = client.responses.create(model="tiny", input=asked, tools=[TOOL], parallel_tool_calls=False)
    called: Any = first.output[-1]
    result = {"type": "function_call_output", "call_id": called.call_id, "output": "A bakery."}
    second = client.responses.create(
        model="tiny",
        input=[*asked, *first.output, result],
        tools=[TOOL],
        include=["reasoning.encrypted_content"],
    )

    Response.model_validate(first.model_dump())
    assert [item.type for item in first.output] == ["reasoning", "message", "function_call"]
    assert (called.name, called.arguments, called.status) == ("look", '{"at": "Lyon"}', "completed")
    assert first.output_text == "I look."
    assert second.output_text == "A bakery is."
    assert prompt_of(server, tokenizer).endswith(
        "<|assistant|><think>Hm.</think>I look.<tool_call>"
        '{"name": "look", "arguments": {"at": "Lyon"}}</tool_call><|end|>'
        "<|tool|>A bakery.<|end|><|assistant|>"
    )


def test_calls_in_a_row_are_one_turn(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Where?"}]},
        MADE_CALL,
        MADE_CALL,
        RESULT,
    ]
    items += [{"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
               "content": [{"type": "output_text", "text": "There.", "annotations": []}]},
              {"role": "developer", "content": "Be short."}]  # fmt: skip
    server.engine.script = saying(tokenizer, "Yes.")

    assert server.http.post("/v1/responses", json={"input": items}).status_code == 200

    call = '<tool_call>{"name": "look", "arguments": {"at": "Lyon"}}</tool_call>'
    assert prompt_of(server, tokenizer) == (
        f"<|user|>Where?<|end|><|assistant|>{call}{call}<|end|><|tool|>A bakery.<|end|>"
        "<|assistant|>There.<|end|><|system|>Be short.<|end|><|assistant|>"
    )


def test_a_stream_tells_of_each_item_in_the_documented_order(
    server: ScriptedServer, tokenizer: Tokenizer
) -> None:
    server.engine.script = saying(tokenizer, f"<think>Hm.</think>I look.{CALL}")

    events = events_of(server, tools=[TOOL])

    kinds = [event["type"].removeprefix("response.") for event in events]
    distinct = [kind for place, kind in enumerate(kinds) if kind != kinds[place - 1]]
    assert distinct == [
        "created", "in_progress",
        "output_item.added", "reasoning_text.delta", "reasoning_text.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENTS.validate_python(event)
    last = events[-1]["response"]
    assert [item["type"] for item in last["output"]] == ["reasoning", "message", "function_call"]
    assert last["usage"]["output_tokens_details"]["reasoning_tokens"] > 0


def test_the_clients_stream_gives_the_whole_answer(
    server: ScriptedServer, tokenizer: Tokenizer, client: openai.OpenAI
) -> None:
    server.engine.script = saying(tokenizer, f"I look twice. {CALL}{CALL} Done.")

    whole = client.responses.create(model="tiny", input="Hi", tools=[TOOL])
    with client.responses.stream(model="tiny", input="Hi", tools=[TOOL]) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_response()

    def shown(answer: Any) -> list[Any]:
        texts = [part.text for item in answer.output if item.type == "message" for part in item.content]
        return [
            texts,
            [[item.name, item.arguments] for item in answer.output if item.type == "function_call"],
        ]

    assert shown(streamed) == shown(whole)
    assert [item.type for item in whole.output] == ["message", "function_call", "function_call", "message"]


def test_a_failure_ends_a_stream_with_an_event(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    begun = saying(tokenizer, "Hello there.")
    server.engine.script = lambda request: [
        *begun(request)[:-1],
        Wait.GATE,
        failed(request, FailureReason.OUT_OF_MEMORY),
    ]
    server.call(server.engine.gate.set)

    events = events_of(server)

    assert (events[-1]["type"], events[-1]["response"]["status"]) == ("response.failed", "failed")
    assert events[-1]["response"]["error"]["code"] == "out_of_memory"
    eventually(lambda: not server.engine.open, "the engine's request is closed")


def test_who_leaves_cancels(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    begun = saying(tokenizer, "Hello there.")
    server.engine.script = lambda request: [*begun(request)[:-1], Wait.FOREVER]

    with server.http.stream("POST", "/v1/responses", json={"input": "Hi", "stream": True}) as response:
        lines = response.iter_lines()
        next(lines)
        assert server.engine.open

    eventually(lambda: not server.engine.open, "the engine's request is closed")


def test_responses_count_in_the_metrics(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    def count() -> float:
        lines = server.http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("dllm_requests_total{"))

    server.engine.script = saying(tokenizer, "Hello.")
    before = count()
    server.http.post("/v1/responses", json={"input": "Hi"})

    eventually(lambda: count() == before + 1, "the request is counted")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_object", "mood": 1}}}, "text.format.mood"),
        ({"text": {"format": {"type": "json_object"}}, "ignore_eos": True}, "ignore_eos"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "walk"}, "tools": [TOOL]}, "tool_choice"),
        ({"tool_choice": "required", "tools": [TOOL], "ignore_eos": True}, "ignore_eos"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 100_000}, "max_output_tokens"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": "t " * 100_000}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]},
         "input.0.content.0.type"),
        ({"input": [{"role": "user"}]}, "input.0.content"),
        ({"input": [MADE_CALL | {"arguments": "{"}]}, "input.0.arguments"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input.0.call_id"),
        ({"mood": "good"}, "mood"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named(server: ScriptedServer, body: dict[str, Any], param: str) -> None:
    assert refusal(server, **body)["param"] == param


def test_what_clients_send_for_their_own_ends_passes(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    server.engine.script = saying(tokenizer, "Hello.")
    body = {
        "input": [{"role": "user", "content": "Hi", "type": "message", "id": "m", "status": None}],
        "store": False, "include": [], "truncation": "disabled", "background": False, "user": "u",
        "previous_response_id": None, "conversation": None, "service_tier": "auto", "max_tool_calls": 4,
        "prompt_cache_key": "k", "safety_identifier": "s", "top_logprobs": 0, "top_p": 1.0,
        "reasoning": {"effort": "low", "summary": "auto"}, "tools": [], "tool_choice": "auto",
        "text": {"format": {"type": "text"}, "verbosity": "low"},
    }  # fmt: skip

    response = server.http.post("/v1/responses", json=body)

    assert response.status_code == 200, response.text
    assert response.json()["reasoning"]["effort"] == "low"


PARTS = st.lists(
    st.one_of(
        st.builds(Said, st.text(min_size=1, max_size=3)),
        st.builds(Thought, st.text(min_size=1, max_size=3)),
        st.just(Called("look", "{}")),
    ),
    max_size=8,
)


def make_body(**changes: Any) -> ResponseBody:
    fields = {
        "id": "resp_1", "created_at": 1, "instructions": None, "max_output_tokens": None, "metadata": {},
        "model": "tiny", "parallel_tool_calls": True, "reasoning": {}, "temperature": 0, "text": {},
        "tool_choice": "auto", "tools": [], "top_p": 1,
    }  # fmt: skip
    return ResponseBody(**(fields | changes))


def written(parts: list[Part], pieces: list[list[Part]]) -> tuple[list[Event], ResponseBody]:
    writer = ResponseWriter(make_body())
    events = writer.begin()
    for piece in pieces:
        events += writer.add(piece)
    return [*events, *writer.end(make_body(status="completed"))], writer.response


@given(PARTS)
def test_whatever_the_parts_events_are_numbered_and_add_up_to_the_items(parts: list[Part]) -> None:
    events, response = written(parts, [[part] for part in parts])

    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENTS.validate_python(event)
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == response.model_dump()["output"] == events[-1]["response"]["output"]
    for place, item in enumerate(done):
        deltas = [
            event["delta"]
            for event in events
            if event["type"].endswith(".delta") and event["output_index"] == place
        ]
        whole = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        assert ("".join(deltas), item["status"]) == (whole, "completed")


@given(PARTS)
def test_the_items_do_not_depend_on_the_pieces(parts: list[Part]) -> None:
    assert written(parts, [parts])[1] == written(parts, [[part] for part in parts])[1]
