"""What is asked and when: prompts, traces, settings, the loads made of them, a sweep's search."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path

import pytest
from dllm_server.load.answer import Answer, EventDecoder, error_code
from dllm_server.load.endpoint import Api, Endpoint, base_url, choose_model
from dllm_server.load.lengths import PROFILES
from dllm_server.load.plan import LEAST_TRIED, drawing, loads, trial
from dllm_server.load.question import Question, TextScale, read_questions
from dllm_server.load.run import ClosedLoad, OpenLoad
from dllm_server.load.settings import BenchSettings
from dllm_server.load.sweep import Sweep
from dllm_server.load.trace import TraceEntry, read_trace
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

PLAIN = TextScale()


def open_loads(settings: BenchSettings, scale: TextScale = PLAIN) -> list[OpenLoad]:
    found = loads(settings, drawing(settings, scale), scale)
    assert all(isinstance(load, OpenLoad) for load in found)
    return found  # type: ignore[return-value]


def words_of(question: Question) -> int:
    return len(question.text.split())


@given(st.floats(0.01, 1000), st.floats(0.001, 0.5), st.floats(1e-3, 1e4))
def test_a_sweep_finds_where_an_objective_breaks(first: float, tolerance: float, limit: float) -> None:
    sweep, tries = Sweep(first, tolerance), 0
    while (rate := sweep.next_rate()) is not None:
        assert sweep.held < rate < sweep.broken
        sweep = sweep.tried(rate, has_held=rate <= limit)
        tries += 1

    assert tries <= 60
    if sweep.held and math.isfinite(sweep.broken):
        assert sweep.held <= limit < sweep.broken <= sweep.held * (1 + tolerance)
    else:
        assert limit < first / 2**6 or limit >= first * 2**20


@given(st.floats(0.1, 100), st.lists(st.booleans(), max_size=80))
def test_a_sweep_whose_tries_contradict_each_other_ends_as_well(first: float, answers: list[bool]) -> None:
    sweep = Sweep(first)
    for has_held in answers:
        rate = sweep.next_rate()
        if rate is None:
            break
        sweep = sweep.tried(rate, has_held=has_held)

    assert sweep.held < sweep.broken


def test_a_sweep_that_nothing_holds_or_breaks_gives_up() -> None:
    for answer, held, broken in ((True, 2.0**20, math.inf), (False, 0.0, 2.0**-6)):
        sweep = Sweep(1.0)
        while (rate := sweep.next_rate()) is not None:
            sweep = sweep.tried(rate, has_held=answer)
        assert (sweep.held, sweep.broken) == (held, broken)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own.csv", "seconds,prompt_tokens,max_tokens\n10,100,20\n12.5,50,10\n"),
        (
            "own.jsonl",
            '{"seconds": 12.5, "prompt_tokens": 50, "max_tokens": 10}\n'
            '{"seconds": 10, "prompt_tokens": 100, "max_tokens": 20}\n',
        ),
        (
            "mooncake.jsonl",
            '{"timestamp": 10000, "input_length": 100, "output_length": 20, "hash_ids": [1]}\n\n'
            '{"timestamp": 12500, "input_length": 50, "output_length": 10}\n',
        ),
        ("burst.csv", "Timestamp,Model,Request tokens,Response tokens\n10,x,100,20\n12.5,x,50,10\n"),
        (
            "azure.csv",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:10.0000000,100,20\n"
            "2023-11-16 18:15:12.5000000,50,10\n",
        ),
    ],
)
def test_traces_of_several_makes_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)

    assert read_trace(path) == [TraceEntry(0.0, 100, 20), TraceEntry(2.5, 50, 10)]
    assert read_trace(path, speed=2.0)[1].seconds == 1.25


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.csv", "seconds,prompt\n1,2\n", "a.csv:2: has none"),
        ("a.csv", "seconds,prompt_tokens,max_tokens\n1,x,2\n", "a.csv:2: invalid literal"),
        ("a.csv", "", "holds no requests"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: not a JSON object"),
        ("a.jsonl", "{\n", "a.jsonl:1: not JSON"),
    ],
)
def test_a_trace_that_is_wrong_names_its_line(tmp_path: Path, name: str, text: str, problem: str) -> None:
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(ValueError, match=problem):
        read_trace(path)


def test_prompts_are_a_text_files_lines_or_json(tmp_path: Path) -> None:
    text, jsonl = tmp_path / "a.txt", tmp_path / "a.jsonl"
    text.write_text("one\n\ntwo\n")
    messages = [{"role": "user", "content": "hi"}]
    jsonl.write_text(
        json.dumps({"prompt": "one"}) + "\n" + json.dumps({"messages": messages, "max_tokens": 5})
    )

    assert read_questions(text, 9) == [Question(9, "one"), Question(9, "two")]
    assert read_questions(jsonl, 9) == [Question(9, "one"), Question(5, messages=tuple(messages))]
    assert read_questions(jsonl, 9, 7)[1].max_tokens == 7


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "{}",
        '{"prompt": 1}',
        '{"prompt": "a", "messages": [1]}',
        '{"prompt": "a", "max_tokens": 0}',
    ],
)
def test_a_prompt_that_is_wrong_names_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"prompt": "a"}}\n{line}\n')

    with pytest.raises(ValueError, match=r"a\.jsonl:2: "):
        read_questions(path, 9)


@given(st.floats(0, 50), st.floats(0.5, 8), st.integers(100, 2000))
def test_texts_come_to_the_tokens_that_are_wanted(overhead: float, each: float, wanted: int) -> None:
    def tokens(words: int) -> int:
        return round(overhead + each * words)

    scale = TextScale.through((16, tokens(16)), (144, tokens(144)))

    assert tokens(scale.words(wanted)) == pytest.approx(wanted, abs=0.02 * wanted + each + 2)


def test_an_endpoint_that_does_not_count_prompts_is_told_of() -> None:
    with pytest.raises(ValueError, match="does not count prompts"):
        TextScale.through((16, 0), (144, 0))


def test_an_open_load_is_as_long_as_asked() -> None:
    (by_time,) = open_loads(BenchSettings(rate=50, duration="4s"))
    (by_number,) = open_loads(BenchSettings(rate=50, requests=77))

    assert 140 < len(by_time.arrivals) < 260
    assert by_time.arrivals[-1].seconds < 4.0
    assert len(by_number.arrivals) == 77


def test_prompts_of_a_profile_have_its_lengths() -> None:
    (load,) = open_loads(BenchSettings(rate=10, requests=300, profile="code"), TextScale(20.0, 2.0))

    lengths = sorted(20 + 2 * words_of(arrival.job) for arrival in load.arrivals)
    assert lengths[0] >= PROFILES["code"].shortest - 2
    assert lengths[150] == pytest.approx(450, rel=0.15)
    assert {arrival.job.max_tokens for arrival in load.arrivals} == {256}


def test_prompts_of_one_length_have_it() -> None:
    settings = BenchSettings(rate=10, requests=5, prompt_tokens=48, max_tokens=40)

    (load,) = open_loads(settings, TextScale(8.0, 2.0))

    assert [(words_of(arrival.job), arrival.job.max_tokens) for arrival in load.arrivals] == [(20, 40)] * 5


def test_a_seed_gives_one_load_and_another_seed_another() -> None:
    first, again, other = (
        open_loads(BenchSettings(rate=10, requests=9, seed=seed))[0].arrivals for seed in (1, 1, 2)
    )

    assert first == again != other


def test_rounds_share_the_requests_and_ask_different_things() -> None:
    settings = BenchSettings(rate=10, requests=10, against="b", rounds=3)

    found = open_loads(settings)

    assert [len(load.arrivals) for load in found] == [3, 3, 4]
    assert found[0].arrivals[0] != found[1].arrivals[0]


def test_a_trace_is_cut_into_rounds_that_begin_at_zero(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("seconds,prompt_tokens,max_tokens\n" + "".join(f"{s},{s + 1},7\n" for s in range(6)))

    found = open_loads(BenchSettings(trace=path, against="b", rounds=2))
    (short,) = open_loads(BenchSettings(trace=path, requests=4, duration="3s"))

    assert [[arrival.seconds for arrival in load.arrivals] for load in found] == [[0, 1, 2], [0, 1, 2]]
    assert [words_of(arrival.job) for load in found for arrival in load.arrivals] == [1, 2, 3, 4, 5, 6]
    assert len(short.arrivals) == 3


def test_a_file_of_prompts_is_asked_from_its_begin_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")

    (load,) = open_loads(BenchSettings(rate=10, requests=5, prompts=path, max_tokens=3))

    assert [arrival.job.text for arrival in load.arrivals] == ["one", "two", "one", "two", "one"]


def test_clients_are_a_closed_load_and_four_of_them_the_default() -> None:
    (load,) = loads(BenchSettings(), drawing(BenchSettings(), PLAIN), PLAIN)
    (limited,) = loads(BenchSettings(clients=9, requests=5), drawing(BenchSettings(), PLAIN), PLAIN)

    assert isinstance(load, ClosedLoad)
    assert (load.clients, load.seconds, load.requests) == (4, 30.0, math.inf)
    assert isinstance(limited, ClosedLoad)
    assert (limited.clients, limited.seconds, limited.requests) == (9, math.inf, 5)


def test_a_try_of_a_sweep_has_requests_enough_and_waits_no_longer_than_the_objective() -> None:
    settings = BenchSettings(sweep=True, objective="end=3s", duration="10s")

    load = trial(settings, drawing(settings, PLAIN), 0.5, 0)

    assert len(load.arrivals) == pytest.approx(LEAST_TRIED, abs=12)
    assert load.drain_seconds == 3.0


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"rate": 1, "clients": 2}, "--rate and --clients are different loads"),
        ({"sweep": True}, "--sweep needs an --objective"),
        ({"sweep": True, "objective": "end=1s", "clients": 1}, "--clients has none"),
        ({"sweep": True, "objective": "end=1s", "against": "b"}, "--sweep is of one endpoint"),
        ({"objective": "end"}, "first=2s"),
        ({"duration": "soon"}, "500ms"),
        ({"body": "{"}, "body"),
        ({"body": "[]"}, "body"),
        ({"rate": 0}, "rate"),
    ],
)
def test_settings_that_mean_nothing_are_refused(flags: dict, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        BenchSettings(**flags)


def test_variables_set_what_flags_do_not_and_keys_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLLM_BENCH_API_KEY", "secret-key")
    monkeypatch.setenv("DLLM_BENCH_OBJECTIVE", "end=1s")
    monkeypatch.setenv("DLLM_BENCH_BODY", '{"a": 1}')

    settings = BenchSettings(clients=3)

    assert (str(settings.objective), settings.body) == ("end=1s", {"a": 1})
    assert "secret-key" not in repr(settings)


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("https://a.example/v1/", "https://a.example"),
        ("http://a.example/team/v1/chat/completions", "http://a.example/team"),
        ("http://[::1]:8000/v1/completions", "http://[::1]:8000"),
    ],
)
def test_addresses_are_taken_as_people_write_them(given_url: str, expected: str) -> None:
    assert base_url(given_url) == expected


@pytest.mark.parametrize("url", ["ftp://a", "http://", "http://user:key@a", "http://a?x=1"])
def test_what_is_no_address_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="address") as caught:
        base_url(url)

    assert "key@" not in str(caught.value)


@pytest.mark.parametrize(("names", "wanted", "expected"), [(["a"], None, "a"), (["a", "b"], "b", "b")])
def test_the_model_is_the_only_one_or_the_one_that_is_named(
    names: list[str], wanted: str | None, expected: str
) -> None:
    assert choose_model({"data": [{"id": name} for name in names]}, wanted, "url") == expected


@pytest.mark.parametrize(
    ("listing", "wanted", "problem"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}]}, None, "serves several models; it lists a, b"),
        ({"data": [{"id": "a"}]}, "c", "does not serve c; it lists a"),
        ({"data": []}, None, "lists no model"),
        ([], None, "lists no model"),
    ],
)
def test_a_model_that_is_not_there_is_an_error_that_lists_those_that_are(
    listing: object, wanted: str | None, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        choose_model(listing, wanted, "url")


def test_a_body_asks_for_a_stream_with_usage_and_extra_fields_go_over_it() -> None:
    endpoint = Endpoint("http://a", "m", extra={"temperature": 0, "stream_options": None})

    body = endpoint.body(Question(7, "hi"))

    assert body == {
        "messages": [{"role": "user", "content": "hi"}],
        "model": "m",
        "max_tokens": 7,
        "stream": True,
        "temperature": 0,
    }
    assert Endpoint("http://a", "m", Api.COMPLETIONS).body(Question(7, "hi"))["prompt"] == "hi"


def test_messages_cannot_be_asked_of_completions() -> None:
    with pytest.raises(ValueError, match="messages"):
        Endpoint("http://a", "m", Api.COMPLETIONS).body(Question(7, messages=({"role": "user"},)))


EVENTS = (
    b': keep-alive\n\ndata: {"a": 1}\r\n\r\nevent: canvas\ndata: {"b":\ndata: "\xc3\xa4"}\n\ndata: [DONE]\n\n'
)


@given(st.lists(st.integers(0, len(EVENTS)), max_size=12))
def test_events_are_the_same_however_their_bytes_are_cut(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(EVENTS)]
    decoder = EventDecoder()

    found = [data for at, end in itertools.pairwise(ends) for data in decoder.feed(EVENTS[at:end])]

    assert found == ['{"a": 1}', '{"b":\n"ä"}', "[DONE]"]


def test_only_chunks_with_text_are_blocks() -> None:
    answer = Answer()
    chunks = [
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"content": "a"}}]},
        {"choices": [], "object": "dllm.canvas", "text": "a"},
        {"choices": [{"text": "b", "finish_reason": "stop"}], "dllm_stats": {"queue_seconds": 0.25}},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    ]
    for moment, chunk in enumerate(chunks):
        answer.add(json.dumps(chunk), float(moment))

    assert answer.blocks == [1.0, 3.0]
    assert (answer.prompt_tokens, answer.completion_tokens, answer.queue_seconds) == (3, 2, 0.25)
    assert answer.failure() is None


@pytest.mark.parametrize(
    ("events", "failure"),
    [
        ([], "stream: broke off"),
        (['{"choices": [{"delta": {"content": "a"}}]}'], "stream: broke off"),
        (['{"error": {"message": "x", "code": "out_of_memory"}}'], "stream: out_of_memory"),
        (['{"error": {"message": "x", "code": null, "type": "server_error"}}'], "stream: server_error"),
        (["{"], "stream: not JSON"),
        (["[]"], "stream: not an object"),
        (["[DONE]"], None),
    ],
)
def test_a_stream_that_did_not_end_well_has_failed(events: list[str], failure: str | None) -> None:
    answer = Answer()
    for data in events:
        answer.add(data, 0.0)

    assert answer.failure() == failure


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["error", "code", "type", "x"]), inner)
        ),
    )
)
def test_the_code_of_an_error_is_a_short_word(body: object) -> None:
    assert 1 <= len(error_code(body)) <= 60


def test_random_words_differ_from_request_to_request() -> None:
    settings = BenchSettings()
    draw, rng = drawing(settings, PLAIN), random.Random(0)

    texts = {draw(rng, index).text[:40] for index in range(200)}

    assert len(texts) > 190
