"""A request with many faults costs no more than one with a single fault, and no value is an error of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from dllm_server.api.schemas.base import RequestModel
from dllm_server.api.schemas.message_request import CountRequest, MessagesRequest
from dllm_server.api.schemas.requests import (
    ChatCompletionRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from dllm_server.api.schemas.response_request import ResponsesRequest
from pydantic import ValidationError

MODELS = [ChatCompletionRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest]
MODELS += [ResponsesRequest, MessagesRequest, CountRequest]
AWKWARD = [
    None,
    True,
    -1,
    0.5,
    "",
    "x",
    "\ud800",
    [],
    [[]],
    [None],
    {},
    {"type": []},
    {"type": {}},
    {"x": [1]},
]


def lists_of(schema: Any) -> Iterator[Any]:
    """Every list that a core schema validates; ``PromptInput``'s are read by a function of its own."""
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            yield schema
        told = ("json_schema_input_schema", "serialization")
        schema = [] if schema.get("type") == "dataclass" else [schema[k] for k in schema if k not in told]
    if isinstance(schema, list | tuple):
        for part in schema:
            yield from lists_of(part)


@pytest.mark.parametrize("model", MODELS)
def test_every_list_of_a_request_is_read_up_to_its_first_fault(model: type[RequestModel]) -> None:
    lists = list(lists_of(model.__pydantic_core_schema__))

    assert lists
    assert all(found.get("fail_fast") for found in lists)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (DetokenizeRequest, {"tokens": [-1] * 1000}),
        (CompletionRequest, {"prompt": "x", "stop_token_ids": ["1"] * 1000}),
        (ChatCompletionRequest, {"messages": [1] * 1000}),
        (ChatCompletionRequest, {"messages": [{"role": "user", "content": [1] * 1000}]}),
    ],
)
def test_a_fault_in_every_item_is_told_once(model: type[RequestModel], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(body)

    assert refused.value.error_count() == 1


def kinds_of(model: type[RequestModel]) -> Iterator[type[RequestModel]]:
    """The server's own; other tests define some too."""
    for kind in model.__subclasses__():
        if kind.__module__.startswith("dllm_server."):
            yield kind
            yield from kinds_of(kind)


@pytest.mark.parametrize("model", sorted(set(kinds_of(RequestModel)), key=lambda kind: kind.__name__))
def test_a_value_of_any_type_in_any_field_is_a_fault_of_the_request(model: type[RequestModel]) -> None:
    for name, field in model.model_fields.items():
        for value in (*AWKWARD, *([value] for value in AWKWARD)):
            try:
                model.model_validate({field.alias or name: value})
            except ValidationError:
                continue
