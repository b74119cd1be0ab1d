"""langchain-openai's chat and completion models, in the version that the extra ``compat`` pins."""

from __future__ import annotations

import pytest

from tests.compat.conftest import MODEL, Served
from tests.compat.environment import Clients, Told

pytestmark = [pytest.mark.compat, pytest.mark.slow]

ANSWER, OTHER_ANSWER = "1823", "tenalp"


@pytest.fixture(scope="module")
def told(clients: Clients, served: Served) -> Told:
    return clients.drive("langchain_client", *served.address)


def test_a_chat_model_answers_with_its_usage(told: Told) -> None:
    message = told.answer("invoke")

    assert message["content"] == ANSWER
    assert message["usage_metadata"]["output_tokens"] == len(ANSWER)
    assert message["response_metadata"]["model_name"] == MODEL
    assert message["response_metadata"]["finish_reason"] == "stop"


def test_a_stream_adds_up_to_the_answer_and_its_usage(told: Told) -> None:
    streamed, whole = told.answer("stream"), told.answer("invoke")

    assert streamed["content"] == ANSWER
    for count in ("input_tokens", "output_tokens", "total_tokens"):
        assert streamed["usage_metadata"][count] == whole["usage_metadata"][count]


def test_batches_keep_their_order(told: Told) -> None:
    assert told.answer("batch") == [ANSWER, OTHER_ANSWER]
    assert told.answer("asynchronous") == {"batch": [ANSWER, OTHER_ANSWER], "stream": ANSWER}


def test_a_conversation_goes_on_with_messages_as_langchain_stores_them(told: Told) -> None:
    message = told.answer("history")

    assert message["response_metadata"]["finish_reason"] == "stop"
    assert (
        message["usage_metadata"]["input_tokens"]
        > 2 * told.answer("invoke")["usage_metadata"]["input_tokens"]
    )


def test_a_chain_stops_where_it_is_bound_to(told: Told) -> None:
    assert told.answer("chain") == "18"


def test_every_setting_that_asks_for_nothing_passes(told: Told) -> None:
    assert told.answer("with_every_setting") == ANSWER


def test_alternatives_come_through(told: Told) -> None:
    tokens = told.answer("logprobs")["content"]

    assert "".join(token["token"] for token in tokens) == ANSWER
    assert [len(token["top_logprobs"]) for token in tokens] == [3] * len(tokens)


def test_a_completion_model_invokes_streams_and_batches(told: Told) -> None:
    answer = told.answer("completions")

    assert (answer["invoke"], answer["stream"]) == (ANSWER, ANSWER)
    assert answer["batch"] == [ANSWER, OTHER_ANSWER]
    assert answer["generate"]["token_usage"]["completion_tokens"] == len(ANSWER) + len(OTHER_ANSWER)


def test_structured_output_follows_the_schema(told: Told) -> None:
    assert told.answer("structured_output") in ({"a": True}, {"a": False})


@pytest.mark.parametrize(
    ("case", "kind", "param"),
    [
        ("wrong_key", "AuthenticationError", None),
        ("too_long", "BadRequestError", "max_tokens"),
        ("prompt_too_long", "ContextOverflowError", "messages"),  # by which LangChain knows to summarise
    ],
)
def test_a_refusal_names_the_parameter(told: Told, case: str, kind: str, param: str | None) -> None:
    error = told.error(case)

    assert kind in error["kinds"]
    assert error["param"] == param
