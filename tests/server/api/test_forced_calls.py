"""Calls and structures that are held to schemas, by a real engine whose model knows nothing of tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic
from dllm_server.models.tokenizer import load_tokenizer
from openai import OpenAI
from pydantic import BaseModel, ConfigDict
from real_server import RealServer
from safetensors.torch import load_file, save_file
from tool_templates import make_model

MODEL = "tiny"
EOS = 0  # of the embedded model
LOOK: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {
            "type": "object",
            "properties": {"at": {"enum": ["Lyon", "Oslo"]}, "far": {"type": "boolean"}},
            "required": ["at", "far"],
            "additionalProperties": False,
        },
    },
}
WAIT: dict[str, Any] = {"type": "function", "function": {"name": "wait", "parameters": {"enum": [{}]}}}
MESSAGES: list[Any] = [{"role": "user", "content": "What is in Lyon?"}]


class Point(BaseModel):
    model_config = ConfigDict(extra="forbid")

    far: bool


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    directory: Path = tmp_path_factory.mktemp("model")
    make_model(directory)
    open_calls_at_the_end(directory)
    with RealServer("--served-model-name", MODEL, "--block-length", "8", model=str(directory)) as server:
        yield server.client()


def open_calls_at_the_end(directory: Path) -> None:
    """Where the checkpoint would end an answer it opens a call instead."""
    (marker,) = load_tokenizer(directory).added_ids(["<tool_call>"]).values()
    for path in directory.glob("*.safetensors"):
        tensors = load_file(path)
        if (embedding := tensors.get("model.transformer.wte.weight")) is not None:
            embedding[marker] = 1.5 * embedding[EOS]
            path.unlink()
            save_file(tensors, path)


def ask(client: OpenAI, **more: Any) -> Any:
    body: dict[str, Any] = {"messages": MESSAGES, "tools": [LOOK, WAIT], "max_tokens": 120}
    return client.chat.completions.create(**({"model": MODEL} | body | more))


def check(call: Any) -> None:
    arguments = json.loads(call.function.arguments)
    if call.function.name == "look":
        assert arguments.keys() == {"at", "far"}
        assert arguments["at"] in ("Lyon", "Oslo")
    else:
        assert (call.function.name, arguments) == ("wait", {})


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_required_call_is_made_and_follows_its_schema(client: OpenAI, temperature: float) -> None:
    answer = ask(
        client, tool_choice="required", parallel_tool_calls=False, temperature=temperature, n=3, seed=5
    )

    for choice in answer.choices:
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        (call,) = choice.message.tool_calls
        check(call)


def test_a_named_call_is_made_once_and_streamed(client: OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "look"}}
    with client.chat.completions.stream(
        model=MODEL, messages=MESSAGES, tools=[LOOK, WAIT], tool_choice=named, max_tokens=120
    ) as stream:
        choice: Any = stream.get_final_completion().choices[0]

    (call,) = choice.message.tool_calls
    assert (call.function.name, choice.finish_reason) == ("look", "tool_calls")
    check(call)


@pytest.mark.parametrize("is_parallel", [True, False])
def test_a_call_that_need_not_be_made_follows_its_schema(client: OpenAI, is_parallel: bool) -> None:
    (choice,) = ask(client, tool_choice="auto", parallel_tool_calls=is_parallel).choices

    calls = choice.message.tool_calls
    assert len(calls) > 1 if is_parallel else len(calls) == 1
    for call in calls:
        check(call)


def test_a_call_that_need_not_be_made_is_streamed_as_it_is_told_whole(client: OpenAI) -> None:
    whole = ask(client, parallel_tool_calls=False).choices[0].message
    with client.chat.completions.stream(
        model=MODEL, messages=MESSAGES, tools=[LOOK, WAIT], parallel_tool_calls=False, max_tokens=120
    ) as stream:
        streamed: Any = stream.get_final_completion().choices[0].message

    def told(message: Any) -> Any:
        calls = [(call.function.name, call.function.arguments) for call in message.tool_calls]
        return message.content or "", calls

    assert told(streamed) == told(whole)


def test_a_required_call_may_be_cut(client: OpenAI) -> None:
    choice = ask(client, tool_choice="required", max_tokens=6).choices[0]

    assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)
    assert choice.message.content.startswith("<tool_call>")


def test_a_structured_text_leaves_room_for_calls(client: OpenAI) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "point", "schema": Point.model_json_schema()}}

    for choice in ask(client, response_format=schema, temperature=1, n=4, seed=1).choices:
        if choice.finish_reason == "stop":
            Point.model_validate_json(choice.message.content)
        for call in choice.message.tool_calls or []:
            check(call)
        assert choice.message.content or choice.message.tool_calls or choice.finish_reason == "length"


def test_thoughts_that_the_prompt_has_opened_come_before_a_call(client: OpenAI) -> None:
    body = {"chat_template_kwargs": {"thinks": True}, "min_tokens": 0}

    choice = ask(
        client, tool_choice="required", temperature=1, seed=3, max_tokens=60, extra_body=body
    ).choices[0]

    assert choice.message.content in (None, "") or choice.finish_reason == "length"


def test_responses_force_calls_and_parse_structures(client: OpenAI) -> None:
    tool: Any = {"type": "function"} | LOOK["function"]

    called: Any = client.responses.create(
        model=MODEL, input="Look.", tools=[tool], tool_choice={"type": "function", "name": "look"},
        max_output_tokens=120,
    )  # fmt: skip
    parsed = client.responses.parse(model=MODEL, input="Look.", text_format=Point, max_output_tokens=60)

    (call,) = called.output
    assert json.loads(call.arguments)["at"] in ("Lyon", "Oslo")
    assert isinstance(parsed.output_parsed, Point)


def test_the_tools_whose_schemas_are_not_followed_are_named(client: OpenAI) -> None:
    other = {"type": "function", "function": {"name": "x", "parameters": {"not": {}}}}
    body: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": 4}
    created = client.chat.completions.with_raw_response.create

    headers = [created(**body, tools=tools).headers for tools in ([LOOK, other], [LOOK])]
    streamed = created(**body, tools=[LOOK, other], stream=True).headers

    assert [one.get("X-DLLM-Unenforced") for one in (*headers, streamed)] == ["tools.1", None, "tools.1"]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "look"}])
def test_messages_force_calls(client: OpenAI, choice: Any) -> None:
    anthropic = Anthropic(base_url=str(client.base_url).removesuffix("/v1/"), api_key="none")
    schema = LOOK["function"]["parameters"]

    message: Any = anthropic.messages.create(
        model=MODEL, messages=MESSAGES, max_tokens=120, tools=[{"name": "look", "input_schema": schema}],
        tool_choice=choice | {"disable_parallel_tool_use": True},
    )  # fmt: skip

    (call,) = message.content
    assert (message.stop_reason, call.name) == ("tool_use", "look")
    assert call.input["at"] in ("Lyon", "Oslo")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "walk"}}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {
            "name": "x", "strict": True, "parameters": {"not": {}}}}]}, "tools.0"),
        ({"tool_choice": "required", "extra_body": {"ignore_eos": True}}, "ignore_eos"),
        ({"tool_choice": "required", "tools": [
            {"type": "function", "function": {"name": "x", "parameters": {"not": {}}}}]}, "tools"),
    ],
)  # fmt: skip
def test_what_cannot_be_enforced_is_named(client: OpenAI, more: dict[str, Any], param: str) -> None:
    with pytest.raises(Exception, match=param) as refused:
        ask(client, **more)

    assert getattr(refused.value, "param", None) == param
