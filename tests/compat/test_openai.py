"""The public ``openai`` client, in the version that the extra ``compat`` pins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.compat.conftest import KEY, MODEL, Served
from tests.compat.environment import Clients, Told
from tests.server.api.real_server import RealServer

pytestmark = [pytest.mark.compat, pytest.mark.slow]

ANSWER = "1823"


@pytest.fixture(scope="module")
def told(clients: Clients, served: Served) -> Told:
    return clients.drive("openai_client", *served.address)


def test_a_chat_parses_into_the_clients_types(told: Told) -> None:
    answer = told.answer("chat")

    assert answer["object"] == "chat.completion"
    assert answer["model"] == MODEL
    assert answer["choices"][0]["message"]["content"] == ANSWER
    assert answer["choices"][0]["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == len(ANSWER)


def test_a_stream_ends_with_usage_and_says_what_the_whole_answer_says(told: Told) -> None:
    chunks, whole = told.answer("chat_stream"), told.answer("chat")

    texts = [choice["delta"]["content"] or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(texts) == ANSWER
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], whole["usage"])
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


def test_the_clients_own_accumulator_of_streams_gets_the_same_message(told: Told) -> None:
    helper = told.answer("chat_stream_helper")

    assert helper["final"]["content"] == ANSWER
    assert helper["kinds"][-1] == "content.done"


@pytest.mark.parametrize("case", ["chat_with_hints", "chat_of_parts"])
def test_what_asks_for_nothing_changes_no_answer(told: Told, case: str) -> None:
    answer = told.answer(case)

    assert ANSWER in (
        answer,
        answer if isinstance(answer, str) else answer["choices"][0]["message"]["content"],
    )


@pytest.mark.parametrize("case", ["chat_history", "chat_history_as_object", "chat_history_without_content"])
def test_a_conversation_goes_on_with_the_messages_as_they_came(told: Told, case: str) -> None:
    answer = told.answer(case)

    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens"] > told.answer("chat")["usage"]["prompt_tokens"]


def test_alternatives_of_a_token_hold_the_token_itself_and_are_sorted(told: Told) -> None:
    choice = told.answer("chat_logprobs")

    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"] == ANSWER
    for token in tokens:
        alternatives = token["top_logprobs"]
        assert len(alternatives) == 5
        assert alternatives == sorted(alternatives, key=lambda one: -one["logprob"])
        assert alternatives[0]["token"] == token["token"]  # greedy
        assert alternatives[0]["logprob"] == token["logprob"] <= 0


def test_completions_have_alternatives_in_their_own_shape(told: Told) -> None:
    choice = told.answer("completion_logprobs")

    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    for token, logprob, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert len(top) == 5
        assert top[token] == logprob == max(top.values())


def test_choices_come_in_order_with_the_largest_seed_there_is(told: Told) -> None:
    assert told.answer("chat_choices") == [0, 1, 2]


def test_the_fifth_of_five_stops_ends_the_text(told: Told) -> None:
    choice = told.answer("chat_stops")

    assert (choice["message"]["content"], choice["finish_reason"]) == ("1", "stop")


def test_a_response_says_what_chat_says(told: Told) -> None:
    whole, streamed = told.answer("response"), told.answer("response_stream")

    assert (whole["said"], whole["status"], whole["store"]) == (ANSWER, "completed", False)
    assert streamed["text"] == ANSWER
    assert (streamed["kinds"][0], streamed["kinds"][-1]) == ("response.created", "response.completed")


def test_a_completion_ends_at_its_length(told: Told) -> None:
    answer = told.answer("completion")

    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8


def test_an_echo_is_streamed_once(told: Told) -> None:
    answer = told.answer("completion_echo_stream")

    assert answer["streamed"] == answer["whole"]
    assert answer["whole"].startswith("<|user|>Who are you?<|end|>")


def test_prompts_of_different_lengths_are_answered_as_if_alone_and_in_order(told: Told) -> None:
    assert told.answer("completion_prompts") == [[0, ANSWER], [1, ANSWER], [2, "tenalp"], [3, "tenalp"]]


def test_the_raw_response_carries_the_clients_request_id(told: Told) -> None:
    assert told.answer("raw_response") == {"status": 200, "request_id": "from-the-client", "content": ANSWER}


def test_the_raw_stream_is_server_sent_events_to_the_end(told: Told) -> None:
    answer = told.answer("streaming_response")

    assert answer["type"].startswith("text/event-stream")
    data = [line for line in answer["lines"] if line.startswith("data: ")]
    assert data[-1] == "data: [DONE]"
    assert all(json.loads(line[6:])["object"] == "chat.completion.chunk" for line in data[:-1])


def test_the_served_model_is_listed_and_retrieved(told: Told) -> None:
    answer = told.answer("models")

    assert answer["listed"] == [MODEL]
    assert (answer["retrieved"]["id"], answer["retrieved"]["object"]) == (MODEL, "model")


def test_an_answer_follows_a_schema(told: Told) -> None:
    choice = told.answer("json_schema")["choices"][0]

    read = json.loads(choice["message"]["content"])

    assert (sorted(read), choice["finish_reason"]) == (["count", "is_it"], "stop")
    assert isinstance(read["is_it"], bool)
    assert told.answer("json_object")["choices"][0]["finish_reason"] == "length"


def test_sixteen_mixed_requests_at_once_are_each_answered_as_if_alone(told: Told) -> None:
    assert told.answer("together") == [ANSWER] * 16


@pytest.mark.parametrize(
    ("case", "kind", "status", "param"),
    [
        ("unknown_model", "NotFoundError", 404, "model"),
        ("retrieve_unknown_model", "NotFoundError", 404, "model"),
        ("too_long", "BadRequestError", 400, "max_tokens"),
        ("schema_refused", "BadRequestError", 400, "response_format.json_schema.schema"),
        ("image", "BadRequestError", 400, "messages.0.content.0.type"),
        ("unknown_parameter", "BadRequestError", 400, "max_tokns"),
        ("response_of_another", "BadRequestError", 400, "previous_response_id"),
        ("embeddings", "NotFoundError", 404, None),
        ("wrong_key", "AuthenticationError", 401, None),
    ],
)
def test_a_refusal_is_the_clients_own_kind_of_error_and_names_the_parameter(
    told: Told, case: str, kind: str, status: int, param: str | None
) -> None:
    error = told.error(case)

    assert (error["kinds"][0], error["status"], error["param"]) == (kind, status, param)
    assert set(error["body"]) == {"message", "type", "param", "code"}


def test_the_embedded_model_calls_a_tool_and_tells_its_result(told: Told) -> None:
    (called,) = told.answer("tools")["choices"][0]["message"]["tool_calls"]

    assert called["function"]["name"] == "get_weather"
    assert json.loads(called["function"]["arguments"]) == {"city": "Lyon"}
    assert told.answer("tool_history")["choices"][0]["message"]["content"] == "The result is 42"


def test_no_server_and_no_patience_are_connection_errors(told: Told) -> None:
    assert told.error("nobody_listens")["kinds"][0] == "APIConnectionError"
    assert told.error("out_of_patience")["kinds"][0] == "APITimeoutError"


@pytest.fixture(scope="module")
def told_by_a_full_queue(clients: Clients, keys_file: Path) -> Told:
    flags = ["--max-num-seqs", "1", "--max-queued-requests", "1", "--api-keys-file", str(keys_file)]
    with RealServer(*flags, "--served-model-name", MODEL, model="embedded") as server:
        return clients.drive("openai_rate_limits", server.url, KEY, MODEL)


def test_a_full_queue_is_a_rate_limit_with_the_time_to_wait(told_by_a_full_queue: Told) -> None:
    errors = told_by_a_full_queue.answer("refused")

    assert errors
    for error in errors:
        assert (error["kinds"][0], error["status"], error["code"]) == ("RateLimitError", 429, "queue_full")
        assert int(error["headers"]["retry-after"]) >= 1


def test_the_clients_own_retries_bring_all_through_a_full_queue(told_by_a_full_queue: Told) -> None:
    answers = told_by_a_full_queue.answer("retried")

    assert len(answers) == 6
    assert len(set(answers)) == 1
