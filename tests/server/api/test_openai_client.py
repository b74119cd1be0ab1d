"""The real server, engine and checkpoint, through the real ``openai`` client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from real_server import RealServer
from scripted_engine import FIXTURE

MODEL = "tiny"
MESSAGES: list[Any] = [{"role": "user", "content": "t4 t678 t87 t468"}]
CASES = json.loads((FIXTURE / "cases.json").read_text())["cases"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    keys = Path(tmp_path_factory.mktemp("keys")) / "keys"
    keys.write_text("right\n")
    with RealServer(
        "--served-model-name", MODEL, "--block-length", "8", "--api-keys-file", str(keys)
    ) as started:
        started.http.headers["Authorization"] = "Bearer right"
        yield started


@pytest.fixture
def client(server: RealServer) -> openai.OpenAI:
    return server.client("right")


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_the_fixtures_tokens_and_forward_passes_are_exact(server: RealServer, case: dict[str, Any]) -> None:
    answer = server.complete(
        prompt=case["prompt"],
        max_tokens=case["max_tokens"],
        return_token_ids=True,
        ignore_eos=True,
        diffusion={
            "block_length": case["block_length"],
            "refresh_interval": 1 if case["cache"] == "none" else None,
            "unmasking": {"strategy": case["strategy"], "value": case["value"]},
        },
    )

    assert answer["choices"][0]["token_ids"] == case["expected"]
    assert answer["dllm_stats"]["forward_passes"] == case["forwards"]


def test_chat_answers_with_usage_and_stats(client: openai.OpenAI) -> None:
    answer: Any = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_completion_tokens=12)

    assert answer.choices[0].message.role == "assistant"
    assert len(answer.choices[0].message.content.split()) == answer.usage.completion_tokens
    assert answer.usage.prompt_tokens == 4
    assert answer.dllm_stats["forward_passes"] >= answer.dllm_stats["refresh_passes"] >= 1


def untimed(stats: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stats.items() if name != "queue_seconds"}


@pytest.mark.parametrize("temperature", [0, 1.5])
@pytest.mark.parametrize("stop", [None, ["t143 t143", "t8"]])
def test_a_stream_says_what_a_whole_answer_says(client: openai.OpenAI, temperature: float, stop: Any) -> None:
    asked: Any = {
        "model": MODEL,
        "messages": MESSAGES,
        "max_tokens": 40,
        "temperature": temperature,
        "stop": stop,
        "seed": 3,
    }
    whole: Any = client.chat.completions.create(**asked)
    chunks: list[Any] = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )

    told = [chunk for chunk in chunks if chunk.choices]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == whole.choices[0].message.content
    assert told[0].choices[0].delta.role == "assistant"
    assert told[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert chunks[-1].dllm_stats == told[-1].dllm_stats
    assert untimed(chunks[-1].dllm_stats) == untimed(whole.dllm_stats)
    if stop is None:
        assert len(told) == 5 + 1  # a chunk a block of 8, then the end


def test_completions_stream_too(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "prompt": "t1 t2", "max_tokens": 20, "echo": True}
    whole = client.completions.create(**asked)
    chunks: list[Any] = list(client.completions.create(**asked, stream=True))

    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert whole.choices[0].text.startswith("t1 t2")


@pytest.mark.parametrize("prompt", ["t5 t6", [5, 6]])
def test_a_prompt_may_be_text_or_tokens(server: RealServer, prompt: Any) -> None:
    single = server.complete(prompt=prompt, max_tokens=4, return_token_ids=True)
    double = server.complete(prompt=[prompt, prompt], max_tokens=4, return_token_ids=True)

    assert single["choices"][0]["prompt_token_ids"] == [5, 6]
    assert [choice["token_ids"] for choice in double["choices"]] == [single["choices"][0]["token_ids"]] * 2
    assert double["usage"]["prompt_tokens"] == 4


def test_a_stop_string_across_blocks_ends_the_text_before_it(server: RealServer) -> None:
    free = server.complete(prompt=[5, 6], max_tokens=24, return_token_ids=True, ignore_eos=True)["choices"][0]
    words = free["text"].split(" ")
    stop = " ".join(words[6:10])  # blocks have 8 tokens
    stopped = server.complete(prompt=[5, 6], max_tokens=24, stop=stop, ignore_eos=True)

    assert stopped["choices"][0]["text"] == free["text"][: free["text"].index(stop)]
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert stopped["usage"]["completion_tokens"] <= 10


def test_seeds_decide_the_text(client: openai.OpenAI) -> None:
    def text(seed: int) -> str:
        asked: Any = {"model": MODEL, "prompt": "t1", "max_tokens": 24, "temperature": 2, "seed": seed}
        return client.completions.create(**asked).choices[0].text

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_two_choices_differ_and_the_first_is_that_of_one(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": 24, "temperature": 2, "seed": 1}
    two = client.chat.completions.create(**asked, n=2)
    one = client.chat.completions.create(**asked)

    assert two.choices[0].message.content == one.choices[0].message.content
    assert two.choices[0].message.content != two.choices[1].message.content


def test_logprobs_are_given_for_each_token(client: openai.OpenAI) -> None:
    chat: Any = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=9, logprobs=True)
    plain: Any = client.completions.create(model=MODEL, prompt="t1", max_tokens=9, logprobs=1)

    content = chat.choices[0].logprobs.content
    assert "".join(token.token for token in content) == chat.choices[0].message.content
    assert all(token.logprob <= 0 for token in content)
    logprobs = plain.choices[0].logprobs
    assert "".join(logprobs.tokens) == plain.choices[0].text
    places = zip(logprobs.text_offset, logprobs.tokens, strict=True)
    assert all(plain.choices[0].text.startswith(token, place) for place, token in places)


def test_canvas_events_show_the_block_and_pass_through_the_client(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": 16, "stream": True}
    plain = "".join(chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked))
    options: Any = {"include_canvas": True}
    chunks: list[Any] = list(client.chat.completions.create(**asked, stream_options=options))

    canvases = [chunk for chunk in chunks if chunk.object == "dllm.canvas"]
    told = [chunk for chunk in chunks if chunk.choices]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == plain
    assert canvases
    assert {canvas.block_start for canvas in canvases} <= {0, 8}
    assert any(-1 in canvas.token_ids and "\u2591" in canvas.text for canvas in canvases)


@pytest.mark.parametrize("max_tokens", [1, 31, 33, 512 - 4])
def test_any_length_up_to_the_models_works(client: openai.OpenAI, max_tokens: int) -> None:
    extra = {"ignore_eos": True, "diffusion": {"unmasking": {"strategy": "quota", "value": 8}}}
    answer: Any = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=max_tokens, extra_body=extra
    )

    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (max_tokens, "length")


def test_the_mask_tokens_name_in_a_prompt_is_ordinary_text_and_is_echoed_unharmed(
    server: RealServer,
) -> None:
    prompt = "t1 <|mdm_mask|> t2"

    choice = server.complete(prompt=prompt, max_tokens=8, echo=True, return_token_ids=True)["choices"][0]
    tokens = server.http.post("/tokenize", json={"prompt": prompt}).json()

    assert choice["text"].startswith(prompt)
    assert choice["prompt_token_ids"] == tokens["tokens"] == [1, 0, 2]  # 0: an unknown word
    assert 1000 not in choice["token_ids"]


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_errors_are_the_clients_own_kinds(server: RealServer, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=600)
    with pytest.raises(openai.BadRequestError) as unsupported:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, logit_bias={"5": 1})
    with pytest.raises(openai.AuthenticationError) as wrong_key:
        server.client("wrong").models.list()

    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert too_long.value.code == "context_length_exceeded"
    assert unsupported.value.param == "logit_bias"
    assert wrong_key.value.code == "invalid_api_key"


def test_the_log_holds_neither_prompts_nor_keys(server: RealServer) -> None:
    server.complete(prompt="t999", max_tokens=1, user="someone")

    log = "".join(server.log)
    assert "listening" in log
    assert "t999" not in log
    assert "right" not in log
