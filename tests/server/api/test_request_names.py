"""Names at every depth of a request: fields, parameters that this server lacks, and unknown ones."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from dllm_server.api.schemas.chat_template import RESERVED_ARGUMENTS
from dllm_server.api.schemas.errors import ApiError
from dllm_server.api.schemas.names import Names, names_of, read_names
from dllm_server.api.schemas.neutral import HINT
from dllm_server.api.schemas.requests import ChatCompletionRequest, CompletionRequest, TokenizeRequest
from dllm_server.api.schemas.response_request import ResponsesRequest
from dllm_server.models.tokenizer import Tokenizer
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import ScriptedServer
from tool_templates import make_tokenizer
from transformers import PreTrainedTokenizerFast

MODELS = (ChatCompletionRequest, CompletionRequest, TokenizeRequest, ResponsesRequest)
CHAT = names_of(ChatCompletionRequest)
PLACES = {
    "": CHAT,
    "stream_options": CHAT.inside["stream_options"],
    "messages.1": CHAT.inside["messages"],
    "messages.1.content.0": CHAT.inside["messages"].inside["content"],
    "messages.1.tool_calls.0": CHAT.inside["messages"].inside["tool_calls"],
    "tools.0": CHAT.inside["tools"],
    "tools.0.function": CHAT.inside["tools"].inside["function"],
    "diffusion": CHAT.inside["diffusion"],
    "diffusion.unmasking": CHAT.inside["diffusion"].inside["unmasking"],
}
DOCUMENT = Path(__file__).parents[3] / "docs" / "api.md"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def make_body(place: str, extra: dict[str, Any]) -> dict[str, Any]:
    """A conversation with ``extra`` in one of ``PLACES``."""
    own = {at: extra if at == place else {} for at in PLACES}
    part = {"type": "text", "text": "t2"} | own["messages.1.content.0"]
    function = {"name": "look"} | own["tools.0.function"]
    tool = {"type": "function", "function": function} | own["tools.0"]
    called = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
    calls = {"tool_calls": [called | own["messages.1.tool_calls.0"]]}
    said = {"role": "assistant", "content": [part]} | calls | own["messages.1"]
    unmasking = {"unmasking": own["diffusion.unmasking"]} if place == "diffusion.unmasking" else {}
    options = {"stream": True, "stream_options": own["stream_options"]} if place == "stream_options" else {}
    user = {"role": "user", "content": "t1"}
    body = {"messages": [user, said, user], "max_tokens": 4, "diffusion": own["diffusion"] | unmasking}
    return body | {"tools": [tool]} | options | own[""]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return make_tokenizer(tmp_path_factory.mktemp("tools"))


def path_of(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


@pytest.mark.parametrize("place", PLACES)
def test_every_parameter_but_a_hint_is_refused_by_its_full_path_unless_it_is_neutral(place: str) -> None:
    for name, neutral in PLACES[place].neutral.items():
        body = make_body(place, {name: ["what", "no", "client", "sends"]})
        if neutral is HINT:
            read_names(body, CHAT)
            continue
        with pytest.raises(ApiError) as refused:
            read_names(body, CHAT)
        error = refused.value.body.error
        assert (refused.value.status, error.param) == (400, path_of(place, name))
        assert error.message.startswith(path_of(place, name))
        assert neutral.remedy in error.message


@pytest.mark.parametrize("place", PLACES)
def test_null_passes_for_every_known_name_and_leaves_no_trace(place: str, tokenizer: Tokenizer) -> None:
    names = PLACES[place]
    required = {"messages", "role", "type", "text", "content", "function", "arguments"}
    required |= {"name"} if place == "tools.0.function" else set()
    optional = (names.fields - required) | names.neutral.keys()

    with ScriptedServer(tokenizer=tokenizer) as server:
        answer = server.http.post("/v1/chat/completions", json=make_body(place, dict.fromkeys(optional)))

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("place", PLACES)
def test_an_unknown_name_is_refused_or_left_out_and_told(place: str, tokenizer: Tokenizer) -> None:
    body = make_body(place, {"mood": {"messages": 1}})
    with (
        ScriptedServer(tokenizer=tokenizer) as strict,
        ScriptedServer(tokenizer=tokenizer, unknown_parameters="warn") as lenient,
    ):
        refused = strict.http.post("/v1/chat/completions", json=body)
        passed = lenient.http.post("/v1/chat/completions", json=body)
        plain = lenient.http.post("/v1/chat/completions", json=make_body(place, {}))

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, path_of(place, "mood"))
    assert (passed.status_code, passed.headers["x-dllm-ignored-parameters"]) == (200, path_of(place, "mood"))
    assert (plain.status_code, "x-dllm-ignored-parameters" in plain.headers) == (200, False)


def test_what_is_told_of_unknown_names_is_bounded_and_fits_a_header(tokenizer: Tokenizer) -> None:
    odd = {
        "\ud800": 1,
        "new\r\nline: x": 1,
        "": 1,
        "x" * 5000: 1,
        **{f"n{number}": 1 for number in range(50)},
    }
    with ScriptedServer(tokenizer=tokenizer, unknown_parameters="warn") as server:
        # JSON in ASCII carries the lone surrogate.
        content = json.dumps(make_body("", odd)).encode("ascii")
        answer = server.http.post("/v1/chat/completions", content=content)

    told = answer.headers["x-dllm-ignored-parameters"].split(", ")
    assert answer.status_code == 200
    assert told == [*(f"n{number}" for number in range(16)), "and 38 more"]


def test_lenience_is_about_names_alone() -> None:
    with ScriptedServer(unknown_parameters="warn") as server:
        answer = server.http.post("/v1/chat/completions", json=make_body("", {"logit_bias": 1, "mood": 1}))

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "logit_bias")


def test_every_argument_of_the_renderer_itself_is_reserved() -> None:
    renderer = inspect.signature(PreTrainedTokenizerFast.apply_chat_template)

    own = {name for name, given in renderer.parameters.items() if given.kind is not given.VAR_KEYWORD}

    assert own | {"messages"} <= RESERVED_ARGUMENTS


@given(json_values)
def test_any_body_is_read_or_refused(body: Any) -> None:
    for model in MODELS:
        for shape in (body, {"messages": body}, {"messages": [body]}, {"tools": [body]}, {"input": [body]}):
            try:
                read_names(shape, names_of(model))
            except ApiError as error:
                assert error.status == 400


def test_the_page_names_every_parameter_that_is_accepted_for_its_neutral_values() -> None:
    page = DOCUMENT.read_text()

    def all_names(names: Names) -> set[str]:
        return set(names.neutral).union(*(all_names(inner) for inner in names.inside.values()))

    named = set[str]().union(*(all_names(names_of(model)) for model in MODELS))

    assert sorted(name for name in named if f"`{name}`" not in page) == []
