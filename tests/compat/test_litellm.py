"""litellm, which many gateways and agents use, in the version that the extra ``compat`` pins."""

from __future__ import annotations

import pytest

from tests.compat.conftest import Served
from tests.compat.environment import Clients, Told

pytestmark = [pytest.mark.compat, pytest.mark.slow]

ANSWER = "1823"


@pytest.fixture(scope="module")
def told(clients: Clients, served: Served) -> Told:
    return clients.drive("litellm_client", *served.address)


@pytest.mark.parametrize("case", ["chat", "chat_as_vllm"])
def test_a_chat_is_answered_with_usage(told: Told, case: str) -> None:
    answer = told.answer(case)

    assert answer["choices"][0]["message"]["content"] == ANSWER
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == len(ANSWER)


@pytest.mark.parametrize("case", ["chat_stream", "chat_stream_as_vllm"])
def test_a_stream_adds_up_to_the_answer_and_its_usage(told: Told, case: str) -> None:
    answer = told.answer(case)

    assert answer["text"] == ANSWER
    assert answer["whole"]["choices"][0]["message"]["content"] == ANSWER
    for count in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert answer["whole"]["usage"][count] == told.answer("chat")["usage"][count]


def test_an_asynchronous_stream_adds_up_to_the_answer(told: Told) -> None:
    assert told.answer("chat_stream_async") == ANSWER


def test_a_conversation_goes_on_with_the_message_as_litellm_dumps_it(told: Told) -> None:
    answer = told.answer("chat_history")

    assert {"content", "role", "tool_calls", "function_call"} <= set(answer["sent"])
    assert answer["answer"]["choices"][0]["finish_reason"] == "stop"


def test_a_conversation_begun_with_another_provider_goes_on_here(told: Told) -> None:
    answer = told.answer("chat_history_of_another_provider")

    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("case", ["chat_with_hints", "vllm_parameters"])
def test_what_asks_for_nothing_changes_no_answer(told: Told, case: str) -> None:
    assert told.answer(case) == ANSWER


def test_a_text_completion_is_answered(told: Told) -> None:
    assert told.answer("text_completion")["choices"][0]["text"] == ANSWER


def test_alternatives_come_through(told: Told) -> None:
    tokens = told.answer("logprobs")["logprobs"]["content"]

    assert "".join(token["token"] for token in tokens) == ANSWER
    assert [len(token["top_logprobs"]) for token in tokens] == [2] * len(tokens)


@pytest.mark.parametrize(
    ("case", "kind", "said"),
    [
        ("unknown_model", "NotFoundError", "gpt-4"),
        ("wrong_key", "AuthenticationError", "API key"),
        ("too_long", "ContextWindowExceededError", "100000"),
        ("prompt_too_long", "ContextWindowExceededError", "messages"),
        ("nobody_listens", "InternalServerError", "Connection error"),
    ],
)
def test_a_refusal_is_litellms_own_kind_of_error_and_says_why(
    told: Told, case: str, kind: str, said: str
) -> None:
    error = told.error(case)

    assert error["kinds"][0] == kind
    assert said in error["text"]
