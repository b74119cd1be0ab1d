"""Prompts scored by /v1/completions: echo with logprobs."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from dllm_server.api.answers.prompt_scoring import MOST_PASSES_AT_ONCE
from dllm_server.engine.requests.messages import (
    Failed,
    FailureReason,
    Finished,
    FinishReason,
    Generate,
    RequestStats,
    StopToken,
)
from real_server import RealServer
from scripted_engine import ScoreScript, Step, hang_scoring, score_by_place
from scripted_server import ScriptedServer, eventually

LOGLIKELIHOOD = {"echo": True, "logprobs": 1, "max_tokens": 0, "temperature": 0}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


def answer(server: ScriptedServer | RealServer, **body: Any) -> dict[str, Any]:
    response = server.http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


def error(server: ScriptedServer, **body: Any) -> tuple[int, str | None, str]:
    response = server.http.post("/v1/completions", json=body)
    told = response.json()["error"]
    return response.status_code, told["param"], told["message"]


def test_a_prompt_comes_back_with_the_scores_of_its_tokens(server: ScriptedServer) -> None:
    body = answer(server, prompt="t1 t2 t3", **LOGLIKELIHOOD)

    (choice,) = body["choices"]
    logprobs = choice["logprobs"]
    assert choice["text"] == "t1 t2 t3"
    assert choice["finish_reason"] == "length"
    assert "".join(logprobs["tokens"]) == "t1 t2 t3"
    assert logprobs["token_logprobs"] == [None, -0.1, -0.2]
    assert logprobs["top_logprobs"][0] is None
    assert [list(named.values()) for named in logprobs["top_logprobs"][1:]] == [[-0.1], [-0.2]]
    assert logprobs["text_offset"] == [0, *[choice["text"].index(word) - 1 for word in ("t2", "t3")]]
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}
    assert body["dllm_stats"]["forward_passes"] == 2
    assert server.engine.requests == []  # nothing was generated


def test_a_token_that_is_the_likeliest_has_exactly_the_likeliests_score(server: ScriptedServer) -> None:
    logprobs = answer(server, prompt=[1, 2, 3], **LOGLIKELIHOOD)["choices"][0]["logprobs"]

    for own, named in zip(logprobs["token_logprobs"][1:], logprobs["top_logprobs"][1:], strict=True):
        assert own == max(named.values())


def test_a_scored_prompt_can_be_continued(server: ScriptedServer) -> None:
    body = answer(server, prompt=[1, 2, 3], echo=True, logprobs=1, max_tokens=5)

    logprobs = body["choices"][0]["logprobs"]
    assert logprobs["token_logprobs"] == [None, -0.1, -0.2, *[-0.5] * 5]
    assert {len(part) for part in logprobs.values()} == {8}
    assert logprobs["text_offset"] == sorted(logprobs["text_offset"])
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert body["dllm_stats"]["forward_passes"] == 2 + 5


def end_at_once(request: Generate) -> list[Step]:
    stop = StopToken(0, -0.25, [(0, -0.25)])
    return [Finished(request.request_id, FinishReason.STOP, RequestStats(1, 1), stop)]


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_token_is_the_last_of_a_scored_prompts_logprobs(stream: bool) -> None:
    """lm-eval sends max_tokens 1 and takes the last for the token generated, also when that is EOS."""
    with ScriptedServer(end_at_once) as server:
        asked = {"prompt": [1, 2, 3], "max_tokens": 1, "logprobs": 1, "stream": stream}

        scored = choices_of(server, asked | {"echo": True})
        plain = choices_of(server, asked)

    told = [choice["logprobs"] for choice in scored if choice["logprobs"] is not None]
    assert [logprob for part in told for logprob in part["token_logprobs"]] == [None, -0.1, -0.2, -0.25]
    assert list(told[-1]["top_logprobs"][-1].values()) == [-0.25]
    assert told[-1]["text_offset"][-1] == sum(len(choice["text"]) for choice in scored)
    assert not any(choice["logprobs"] and choice["logprobs"]["tokens"] for choice in plain)
    assert scored[-1]["finish_reason"] == "stop"


def choices_of(server: ScriptedServer, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The one choice of an answer, or its parts in the chunks of a stream."""
    response = server.http.post("/v1/completions", json=asked)
    if not asked["stream"]:
        return list(response.json()["choices"])
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
    return [choice for line in lines for choice in json.loads(line)["choices"]]


@pytest.mark.parametrize(
    ("prompt", "lengths"),
    [("t1 t2", [2]), ([1, 2], [2]), (["t1 t2", "t3 t4 t5"], [2, 3]), ([[1, 2], [3, 4, 5]], [2, 3])],
)
def test_every_shape_of_prompts_is_scored(server: ScriptedServer, prompt: Any, lengths: list[int]) -> None:
    choices = answer(server, prompt=prompt, **LOGLIKELIHOOD)["choices"]

    assert [len(choice["logprobs"]["token_logprobs"]) for choice in choices] == lengths
    assert [choice["index"] for choice in choices] == list(range(len(lengths)))


def test_a_stream_tells_the_prompts_scores_first(server: ScriptedServer) -> None:
    asked = {"prompt": [1, 2, 3], "echo": True, "logprobs": 1, "max_tokens": 4, "stream": True}
    whole = answer(server, **asked | {"stream": False})["choices"][0]
    with server.http.stream("POST", "/v1/completions", json=asked) as response:
        frames = [line[6:] for line in response.iter_lines() if line.startswith("data: {")]
    parts = [json.loads(frame)["choices"][0] for frame in frames]

    assert "".join(part["text"] for part in parts) == whole["text"]
    for name, expected in whole["logprobs"].items():
        told = [entry for part in parts if part["logprobs"] for entry in part["logprobs"][name]]
        assert told == expected
    assert parts[0]["logprobs"]["token_logprobs"] == [None, -0.1, -0.2]


def test_the_diffusion_object_says_how_a_prompt_is_scored(server: ScriptedServer) -> None:
    likelihood = {"likelihood_start": 3, "likelihood_block_length": 9, "likelihood_samples": 5}

    body = answer(server, prompt=[1, 2, 3, 4, 5, 6], **LOGLIKELIHOOD, diffusion=likelihood)

    assert [score is None for score in body["choices"][0]["logprobs"]["token_logprobs"]] == [True] * 3 + [
        False
    ] * 3
    assert body["dllm_stats"]["forward_passes"] == 5
    assert all(set(score.scored) <= {3, 4, 5} for score in server.engine.scores)


def test_scores_depend_on_the_seed_only_where_one_is_given(server: ScriptedServer) -> None:
    asked = {
        "prompt": [1] * 9,
        "diffusion": {"likelihood_block_length": 8, "likelihood_samples": 2},
    } | LOGLIKELIHOOD

    def masks(**more: Any) -> list[list[int]]:
        server.engine.scores.clear()
        answer(server, **asked, **more)
        return sorted(score.scored for score in server.engine.scores)

    assert masks() == masks() == masks(seed=0) != masks(seed=5)


def test_a_prompt_as_long_as_the_context_can_be_scored_but_not_continued(server: ScriptedServer) -> None:
    most = server.service.limits.max_tokens
    whole = {"prompt": [1] * most, "diffusion": {"likelihood_start": -2}}

    assert len(answer(server, **whole, **LOGLIKELIHOOD)["choices"][0]["logprobs"]["tokens"]) == most
    assert error(server, **whole, **LOGLIKELIHOOD | {"max_tokens": 1})[0] == 400


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "logprobs": 1}, "max_tokens"),
        ({"max_tokens": 0, "echo": True, "n": 2}, "n"),
        ({"max_tokens": 4, "echo": True, "logprobs": 0, "n": 2}, "n"),
        ({**LOGLIKELIHOOD, "diffusion": {"likelihood_start": 0}}, "diffusion.likelihood_start"),
        ({**LOGLIKELIHOOD, "diffusion": {"likelihood_block_length": 0}}, "diffusion.likelihood_block_length"),
        ({**LOGLIKELIHOOD, "diffusion": {"likelihood_samples": 0}}, "diffusion.likelihood_samples"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(
    server: ScriptedServer, asked: dict[str, Any], param: str
) -> None:
    status, named, message = error(server, prompt=[1, 2, 3], **asked)

    assert (status, named) == (400, param)
    assert message.startswith(param)


def test_an_echo_without_logprobs_gives_the_prompt_back_and_asks_the_engine_nothing(
    server: ScriptedServer,
) -> None:
    (choice,) = answer(server, prompt="t1 t2", echo=True, max_tokens=0)["choices"]

    assert (choice["text"], choice["logprobs"]) == ("t1 t2", None)
    assert server.engine.scores == server.engine.requests == []


def test_a_long_prompt_has_a_bounded_number_of_passes_in_the_engine(server: ScriptedServer) -> None:
    answer(server, prompt=[1] * 200, **LOGLIKELIHOOD)

    assert len(server.engine.scores) == 199
    assert server.engine.most_open <= MOST_PASSES_AT_ONCE


def failing(reason: FailureReason) -> ScoreScript:
    return lambda request: (
        Failed(request.request_id, reason, "scripted") if request.scored == [3] else score_by_place(request)
    )


@pytest.mark.parametrize(
    ("reason", "status"),
    [(FailureReason.OUT_OF_MEMORY, 503), (FailureReason.TOO_LARGE, 400), (FailureReason.ENGINE_ERROR, 500)],
)
def test_a_pass_that_fails_ends_the_request_and_leaves_nothing_open(
    server: ScriptedServer, reason: FailureReason, status: int
) -> None:
    server.engine.score_script = failing(reason)

    assert error(server, prompt=[1] * 50, **LOGLIKELIHOOD)[0] == status
    eventually(lambda: not server.engine.open, "all passes closed")
    assert server.service.admission.open_choices == 0


def test_a_pass_that_somebody_cancels_is_told_as_a_shutdown(server: ScriptedServer) -> None:
    server.engine.score_script = lambda request: Finished(
        request.request_id, FinishReason.CANCELLED, RequestStats()
    )

    assert error(server, prompt=[1, 2], **LOGLIKELIHOOD)[0] == 503


def test_an_engine_that_dies_while_scoring_is_a_503(server: ScriptedServer) -> None:
    server.engine.score_script = hang_scoring
    loop = server.service.engine._exit_code.get_loop()  # type: ignore[attr-defined]

    def kill_once_asked() -> None:
        eventually(lambda: bool(server.engine.open), "a pass is open")
        loop.call_soon_threadsafe(server.engine.die, 1)

    threading.Thread(target=kill_once_asked, daemon=True).start()
    assert error(server, prompt=[1, 2], **LOGLIKELIHOOD)[0] == 503


def test_the_time_limit_of_a_request_closes_its_passes() -> None:
    with ScriptedServer(request_timeout_seconds=0.2) as server:
        server.engine.score_script = hang_scoring

        assert error(server, prompt=[1] * 30, **LOGLIKELIHOOD)[0] == 504
        eventually(lambda: not server.engine.open, "all passes closed")
        assert server.service.admission.open_choices == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_closes_its_passes(server: ScriptedServer, stream: bool) -> None:
    server.engine.score_script = hang_scoring
    asked = {"prompt": [1] * 30, "stream": stream} | LOGLIKELIHOOD
    body = json.dumps(asked).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(server.listener_address) as client:
        client.sendall(head.encode() + body)
        eventually(lambda: bool(server.engine.scores), "all passes began")

    eventually(lambda: not server.engine.open, "all passes closed")
    assert server.service.admission.open_choices == 0


def test_the_real_server_scores_as_it_generates() -> None:
    """Left to right, one token a step, a generation's own log probabilities are those of its tokens."""
    with RealServer("--max-num-batched-tokens", "512", "--max-model-len", "128") as server:
        prompt = [5, 6, 7]
        diffusion = {"refresh_interval": 1, "block_length": 1, "unmasking": {"strategy": "quota", "value": 1}}
        made = answer(
            server,
            prompt=prompt,
            max_tokens=6,
            logprobs=3,
            ignore_eos=True,
            return_token_ids=True,
            diffusion=diffusion,
        )["choices"][0]

        scored = answer(server, prompt=prompt + made["token_ids"], **LOGLIKELIHOOD)["choices"][0]["logprobs"]

        assert scored["token_logprobs"][0] is None
        assert scored["token_logprobs"][3:] == pytest.approx(made["logprobs"]["token_logprobs"], abs=1e-3)
        greedy = zip(scored["token_logprobs"][3:], scored["top_logprobs"][3:], strict=True)
        assert all(own == max(named.values()) for own, named in greedy)
        assert server.http.get("/health").status_code == 200
