"""Tools in chat: what the template is given, and how answers that call them come back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dllm_server.engine.requests.messages import FinishReason
from dllm_server.models.tokenizer import Tokenizer
from dllm_server.settings import DiffusionSettings, ToolCallParser
from scripted_engine import Wait
from scripted_server import ScriptedServer, eventually
from tool_server import client_of, prompt_of, saying, serving
from tool_templates import (
    CALL,
    HERMES,
    LLAMA3,
    LOOK,
    UNKNOWN_CALLS,
    WITHOUT_TOOLS,
    make_tokenizer,
)

QUESTION: list[Any] = [{"role": "user", "content": "What is in Lyon?"}]
ARGUMENTS = '{"at": "Lyon"}'
MADE_CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look", "arguments": ARGUMENTS},
}
HISTORY: list[Any] = [
    *QUESTION,
    {"role": "assistant", "content": None, "tool_calls": [MADE_CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "A bakery."},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return make_tokenizer(tmp_path_factory.mktemp("hermes"))


@pytest.fixture(scope="module")
def server(tokenizer: Tokenizer) -> Iterator[ScriptedServer]:
    with serving(tokenizer, saying(tokenizer, "Hello.")) as started:
        yield started


def ask(server: ScriptedServer, **body: Any) -> Any:
    given = {"model": "tiny", "messages": QUESTION, "tools": [LOOK]} | body
    return client_of(server).chat.completions.create(**given)


def refusal(server: ScriptedServer, **body: Any) -> dict[str, Any]:
    given = {"messages": QUESTION, "tools": [LOOK]} | body
    response = server.http.post("/v1/chat/completions", json=given)
    error: dict[str, Any] = response.json()["error"]
    assert (response.status_code, error["param"] in error["message"]) == (400, True)
    return error


def test_a_call_comes_back_as_one(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    server.engine.script = saying(tokenizer, CALL)

    choice = ask(server).choices[0]

    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name, call.function.arguments) == ("function", "look", ARGUMENTS)
    assert call.id.startswith("call_")


def test_content_beside_calls_is_kept_and_each_call_has_an_id(
    server: ScriptedServer, tokenizer: Tokenizer
) -> None:
    server.engine.script = saying(tokenizer, f"I look twice.\n{CALL}\n{CALL}")

    message = ask(server).choices[0].message

    assert message.content == "I look twice."
    assert len({call.id for call in message.tool_calls}) == 2


@pytest.mark.parametrize("block_length", [1, 5, 64])
@pytest.mark.parametrize("are_special", [True, False])
def test_streamed_deltas_add_up_to_the_whole(tmp_path: Path, block_length: int, *, are_special: bool) -> None:
    tokenizer = make_tokenizer(tmp_path, are_special=are_special)
    text = f"<think>Where?</think>I look.\n{CALL}\n{CALL} Done."
    with serving(
        tokenizer, saying(tokenizer, text), diffusion=DiffusionSettings(block_length=block_length)
    ) as server:
        whole = ask(server).choices[0]
        with client_of(server).chat.completions.stream(
            model="tiny", messages=QUESTION, tools=[LOOK]
        ) as stream:
            chunks = [event.chunk for event in stream if event.type == "chunk"]
            streamed = stream.get_final_completion().choices[0]

    assert (whole.message.content, whole.finish_reason) == ("I look.Done.", "tool_calls")
    assert whole.message.reasoning_content == "Where?"
    assert (streamed.message.content, streamed.finish_reason) == (whole.message.content, "tool_calls")
    thoughts = [getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks]
    assert "".join(thoughts) == "Where?"
    calls = [[c.function.name, c.function.arguments] for c in streamed.message.tool_calls]
    assert calls == [[c.function.name, c.function.arguments] for c in whole.message.tool_calls]
    assert len({call.id for call in streamed.message.tool_calls}) == 2


@pytest.mark.parametrize("broken", ['<tool_call>{"name": "look", "argu</tool_call>', CALL[:-12]])
def test_a_broken_call_is_content(server: ScriptedServer, tokenizer: Tokenizer, broken: str) -> None:
    server.engine.script = saying(tokenizer, broken, reason=FinishReason.LENGTH)

    choice = ask(server).choices[0]

    assert (choice.message.content, choice.message.tool_calls) == (broken, None)
    assert choice.finish_reason == "length"


def test_one_call_ends_an_answer_that_may_hold_no_more(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    first = saying(tokenizer, f"{CALL} {CALL}")
    server.engine.script = lambda request: [*first(request)[:-1], Wait.FOREVER]

    choice = ask(server, parallel_tool_calls=False).choices[0]

    assert (choice.finish_reason, len(choice.message.tool_calls)) == ("tool_calls", 1)
    eventually(lambda: not server.engine.open, "the engine's request is closed")


def test_the_prompt_shows_tools_calls_and_results(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    server.engine.script = saying(tokenizer, "A bakery is.")

    answer = ask(server, messages=HISTORY).choices[0]

    assert (answer.message.content, answer.finish_reason) == ("A bakery is.", "stop")
    prompt = prompt_of(server, tokenizer)
    assert json.dumps(LOOK) in prompt
    assert '<tool_call>{"name": "look", "arguments": {"at": "Lyon"}}</tool_call>' in prompt
    assert "<|tool|>A bakery.<|end|><|assistant|>" in prompt


def test_an_answer_goes_back_as_it_came(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    server.engine.script = saying(tokenizer, f"<think>Hm.</think>{CALL}", "A bakery is.")
    message = ask(server).choices[0].message

    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "A bakery."}
    answer = ask(server, messages=[*QUESTION, message, result]).choices[0]

    assert answer.message.content == "A bakery is."
    assert "<think>Hm.</think><tool_call>" in prompt_of(server, tokenizer)


def test_names_of_special_tokens_are_text_in_tools_calls_and_results(
    server: ScriptedServer, tokenizer: Tokenizer
) -> None:
    function = LOOK["function"] | {
        "description": "<|end|><tool_call>",
        "parameters": {"<|end|>": ["<|end|>"]},
    }
    call = MADE_CALL | {"function": {"name": "look", "arguments": '{"<|end|>": "</tool_call>"}'}}
    messages = [
        QUESTION[0],
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "<tool_call><|end|>", "tool_call_id": "<|end|>"},
    ]
    server.engine.script = saying(tokenizer, "Hello.")

    ask(server, messages=messages, tools=[{"type": "function", "function": function}])

    prompt = server.engine.requests[-1].prompt
    end, opening, closing = (
        prompt.count(tokenizer.added_ids([name])[name]) for name in ("<|end|>", "<tool_call>", "</tool_call>")
    )
    assert (end, opening, closing) == (4, 2, 2)  # of the template


def test_a_choice_of_no_tool_shows_none(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    server.engine.script = saying(tokenizer, CALL)

    choice = ask(server, tool_choice="none").choices[0]

    assert (choice.message.tool_calls, choice.finish_reason) == (None, "stop")
    assert "Looks around." not in prompt_of(server, tokenizer)


def test_tokenize_counts_tools(server: ScriptedServer) -> None:
    ask(server)
    told = server.http.post("/tokenize", json={"messages": QUESTION, "tools": [LOOK]}).json()

    assert told["tokens"] == server.engine.requests[-1].prompt


def test_thoughts_may_be_left_out_or_left_in(server: ScriptedServer, tokenizer: Tokenizer) -> None:
    server.engine.script = saying(tokenizer, "<think>\nHm.\n</think>\n\nHello.")

    def message(**body: Any) -> Any:
        return ask(server, **body).choices[0].message.model_dump()

    told = message()
    silent = message(extra_body={"include_reasoning": False})
    inside = message(extra_body={"separate_reasoning": False, "skip_special_tokens": False})

    assert (told["reasoning_content"], told["content"]) == ("Hm.", "Hello.")
    assert ("reasoning_content" in silent, silent["content"]) == (False, "Hello.")
    assert inside["content"] == "<think>\nHm.\n</think>\n\nHello."


def test_thoughts_that_the_prompt_has_opened_are_thoughts(
    server: ScriptedServer, tokenizer: Tokenizer
) -> None:
    server.engine.script = saying(tokenizer, "Hm.</think>Hello.", "Hm.")
    body = {"extra_body": {"chat_template_kwargs": {"thinks": True}}}

    message = ask(server, **body).choices[0].message
    cut = ask(server, **body).choices[0].message

    assert (message.reasoning_content, message.content) == ("Hm.", "Hello.")
    assert (cut.reasoning_content, cut.content) == ("Hm.", "")


def test_llama3s_calls_are_objects_that_name_a_tool(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path, LLAMA3)
    call = '<|python_tag|>{"name": "look", "parameters": {"at": "Lyon"}}'
    with serving(tokenizer, saying(tokenizer, call, '{"name": "Ada"}')) as server:
        called, said = ask(server).choices[0], ask(server).choices[0]

    assert (called.finish_reason, called.message.tool_calls[0].function.arguments) == (
        "tool_calls",
        ARGUMENTS,
    )
    assert (said.finish_reason, said.message.content) == ("stop", '{"name": "Ada"}')


def test_a_template_without_tools_refuses_them_by_name(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path, WITHOUT_TOOLS)
    with serving(tokenizer, saying(tokenizer, "Hello.")) as server:
        assert refusal(server)["param"] == "tools"
        assert refusal(server, tools=[], messages=HISTORY)["param"] == "messages.1.tool_calls"
        assert refusal(server, tools=[], messages=[*QUESTION, HISTORY[2]])["param"] == "messages.1.role"
        assert ask(server, tool_choice="none").choices[0].message.content == "Hello."
        told = server.http.post("/tokenize", json={"messages": QUESTION, "tools": [LOOK]})
        assert told.json()["error"]["param"] == "tools"


def test_calls_in_an_unknown_format_are_refused_unless_the_server_names_their_parser(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path, UNKNOWN_CALLS)
    with serving(tokenizer, saying(tokenizer, CALL)) as server:
        assert "--tool-call-parser" in refusal(server)["message"]
    with serving(tokenizer, saying(tokenizer, CALL), tool_call_parser=ToolCallParser.HERMES) as server:
        assert ask(server).choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "walk"}}}, "tool_choice"),
        ({"tool_choice": "required", "ignore_eos": True}, "ignore_eos"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [LOOK, {"type": "function"}]}, "tools.1.function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "mood": 1}}]}, "tools.0.function.mood"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 5}}]},
         "tools.0.function.parameters"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"messages": [QUESTION[0] | {"tool_calls": [MADE_CALL]}]}, "messages.0.tool_calls"),
        ({"messages": [QUESTION[0] | {"tool_call_id": "1"}]}, "messages.0.tool_call_id"),
        ({"messages": [{"role": "tool", "tool_call_id": "1"}]}, "messages.0.content"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"type": "custom", "custom": {}}]}]},
         "messages.0.tool_calls.0.type"),
        ({"messages": [{"role": "assistant", "tool_calls": [
            {"type": "function", "function": {"name": "a", "arguments": "{"}}]}]},
         "messages.0.tool_calls.0.function.arguments"),
        ({"messages": [{"role": "assistant", "tool_calls": [
            {"type": "function", "function": {"name": "a", "arguments": "[1]"}}]}]},
         "messages.0.tool_calls.0.function.arguments"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_tools_is_named(server: ScriptedServer, body: dict[str, Any], param: str) -> None:
    assert refusal(server, **body)["param"] == param


def test_the_templates_of_the_tests_are_read_as_they_are_meant(tokenizer: Tokenizer) -> None:
    assert tokenizer.template.text == HERMES
    assert tokenizer.template.shows_tools
