"""Requests with grammars through real engines: their texts are valid, whatever the model says, and nobody
else notices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema
import msgspec
import pytest
from byte_tokenizer import byte_model
from dllm_server.engine.requests.messages import (
    Failed,
    FailureReason,
    Finished,
    FinishReason,
)
from dllm_server.settings import Confidence, Strategy
from dllm_server.structure.grammar import Grammar, GrammarKind
from dllm_server.structure.match import GrammarMatch
from engines import FIXTURE, Outcome, collect, make_engine, make_request, run_all, run_alone, used_pages
from faulty_runner import AllocationFailure, install
from guided_requests import engine_of, guided, json_grammar, tokenizer_of
from schema_cases import DIGIT, FLAG, SCHEMAS, items, record

BIDIRECTIONAL = ("llada", "dream", "illada", "llada_moe")
EXACT = ("sdar", "sdar_b8", "llada2", "llada21", "fast_dllm_v2")


def text_of(family: str, outcome: Outcome) -> str:
    return tokenizer_of(family).decode(outcome.tokens)


def check(family: str, outcome: Outcome, schema: Any) -> None:
    """A whole text is of the schema."""
    text = text_of(family, outcome)
    assert isinstance(outcome.end, Finished), outcome.end
    assert outcome.end.reason is FinishReason.STOP, text
    jsonschema.validate(json.loads(text), schema)
    committed = len(outcome.tokens) + (outcome.end.stop is not None)
    assert outcome.stats.forward_passes - outcome.stats.prefill_passes <= max(committed, 1)


def check_schemas(family: str, outcomes: Mapping[str, Outcome], names: Sequence[str]) -> None:
    """Whole texts are of their schemas, and those that were cut short may become so."""
    cut = {name for name in names if outcomes[name].end.reason is FinishReason.LENGTH}  # type: ignore[union-attr]
    assert len(cut) <= 2, cut  # a number may have any number of digits
    for name in cut:
        compiled = engine_of(family).grammars.compiled(json_grammar(SCHEMAS[name])).result()
        GrammarMatch(compiled, engine_of(family).grammars.mask_token_id).advance(outcomes[name].tokens)
    for name in set(names) - cut:
        check(family, outcomes[name], SCHEMAS[name])


@pytest.mark.sampled(0.25)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("family", ["llada", "sdar"])
def test_all_texts_of_all_schemas_are_valid(family: str, temperature: float) -> None:
    """The schemas of a batch beside requests that have none."""
    requests = [
        guided(family, json_grammar(schema), name, temperature=temperature, seed=number)
        for number, (name, schema) in enumerate(SCHEMAS.items())
    ]
    free = [guided(family, None, f"free {number}", max_tokens=24) for number in range(4)]

    outcomes = run_all(engine_of(family), [*requests, *free])

    assert len(SCHEMAS) >= 60
    check_schemas(family, outcomes, [*SCHEMAS])
    assert used_pages(engine_of(family)) == 0
    assert engine_of(family).table.matches == {}


@pytest.mark.sampled(0.1)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("part", range(8))
def test_the_embedded_models_texts_are_valid(part: int, temperature: float) -> None:
    names = [*SCHEMAS][part::8]
    requests = [
        guided("embedded", json_grammar(SCHEMAS[name]), name, temperature=temperature, seed=part)
        for name in names
    ]

    outcomes = run_all(engine_of("embedded"), requests)

    check_schemas("embedded", outcomes, names)


@pytest.mark.sampled(0.34)
@pytest.mark.parametrize("family", [*BIDIRECTIONAL, *EXACT])
def test_a_family_follows_a_schema_alone_as_it_does_beside_others(family: str) -> None:
    schema = SCHEMAS["person"]
    requests = [
        guided(family, json_grammar(schema), f"{number}", temperature=number / 2, seed=number)
        for number in range(3)
    ]

    together = run_all(engine_of(family), [*requests, guided(family, None, "free", max_tokens=40)])

    for request in requests:
        alone = run_alone(engine_of(family), request)
        check(family, alone, schema)
        assert alone.tokens == together[request.request_id].tokens


@pytest.mark.parametrize("family", ["llada", "sdar"])
def test_the_tokens_of_free_requests_do_not_change(family: str) -> None:
    free = [
        guided(family, None, f"free {number}", max_tokens=30, temperature=number / 4, prompt=[7, number])
        for number in range(6)
    ]
    others = [guided(family, json_grammar(SCHEMAS["person"]), f"g{number}") for number in range(2)]

    mixed = run_all(engine_of(family), [*free, *others])

    without = run_all(engine_of(family), free)
    assert {name: mixed[name].tokens for name in without} == {
        name: one.tokens for name, one in without.items()
    }
    assert {name: mixed[name].stats.forward_passes for name in without} == {
        name: one.stats.forward_passes for name, one in without.items()
    }


STRATEGIES = [
    (Strategy.QUOTA, 1.0),
    (Strategy.QUOTA, 4.0),
    (Strategy.SEQUENTIAL, 2.0),
    (Strategy.THRESHOLD, 0.9),
    (Strategy.FACTOR, 1.0),
    (Strategy.ENTROPY_BOUND, 1.0),
]


@pytest.mark.parametrize(("strategy", "value"), STRATEGIES)
@pytest.mark.parametrize("confidence", Confidence)
def test_every_bound_gives_valid_texts(strategy: Strategy, value: float, confidence: Confidence) -> None:
    schema = record(ok=FLAG, n=items(DIGIT, 2, 2))
    request = guided(
        "llada", json_grammar(schema), strategy=strategy, value=value, confidence=confidence, seed=1,
        temperature=1.0, top_p=0.9, top_k=20,
    )  # fmt: skip

    check("llada", run_alone(engine_of("llada"), request), schema)


def test_what_is_forced_takes_few_forward_passes() -> None:
    schema = record(a_long_name_of_a_field=FLAG, another_long_name_of_a_field=FLAG)
    request = guided("llada", json_grammar(schema), strategy=Strategy.QUOTA, value=1.0)

    outcome = run_alone(engine_of("llada"), request)

    check("llada", outcome, schema)
    assert outcome.stats.forward_passes < 0.5 * len(outcome.tokens)


def test_a_quota_of_one_chooses_one_token_a_step() -> None:
    grammar = Grammar(GrammarKind.REGEX, "[a-m]{12}")
    one = run_alone(engine_of("llada"), guided("llada", grammar, strategy=Strategy.QUOTA, value=1.0))
    four = run_alone(engine_of("llada"), guided("llada", grammar, strategy=Strategy.QUOTA, value=4.0))

    assert one.stats.forward_passes == 12
    assert four.stats.forward_passes == 3  # 4 and 4 of a block of 8, 4 of the next


def test_a_text_that_is_cut_ends_for_its_length_and_was_valid_so_far() -> None:
    request = guided("llada", json_grammar(SCHEMAS["person"]), max_tokens=9)

    outcome = run_alone(engine_of("llada"), request)

    assert isinstance(outcome.end, Finished)
    assert outcome.end.reason is FinishReason.LENGTH
    assert text_of("llada", outcome).startswith('{"name":"')


def test_a_text_that_ends_with_the_last_position_has_ended_by_itself() -> None:
    request = guided("llada", Grammar(GrammarKind.REGEX, "[ab]{8}"), max_tokens=8)

    outcome = run_alone(engine_of("llada"), request)

    assert len(outcome.tokens) == 8
    assert isinstance(outcome.end, Finished)
    assert outcome.end.reason is FinishReason.STOP


def test_where_the_text_may_end_or_go_on_the_model_decides_but_for_min_tokens() -> None:
    grammar = Grammar(GrammarKind.REGEX, "a{1,20}")
    request = guided(
        "llada", grammar, max_tokens=40, temperature=2.0, seed=3, strategy=Strategy.QUOTA, value=1.0
    )

    free = run_alone(engine_of("llada"), request)
    bound = run_alone(engine_of("llada"), msgspec.structs.replace(request, min_tokens=9))

    assert text_of("llada", free) == "a" * len(text_of("llada", free)) != ""
    assert 9 <= len(bound.tokens) <= 20
    whole = run_alone(engine_of("llada"), msgspec.structs.replace(request, min_tokens=30))
    assert text_of("llada", whole) == "a" * 20


def test_logprobs_are_those_among_the_tokens_that_are_allowed() -> None:
    grammar = Grammar(GrammarKind.REGEX, "ab[xy]")

    outcome = run_alone(engine_of("llada"), guided("llada", grammar, top_logprobs=20))

    *forced, choice = outcome.alternatives
    assert [len(names) for names in forced] == [1] * (len(outcome.tokens) - 1)
    assert outcome.logprobs[:-1] == [0.0] * len(forced)
    texts = {tokenizer_of("llada").decode([token]) for token, _ in choice}
    assert texts == {"x", "y"}
    assert dict(choice)[outcome.tokens[-1]] == pytest.approx(outcome.logprobs[-1], abs=1e-5)


def test_canvases_show_tokens_from_left_to_right() -> None:
    request = msgspec.structs.replace(guided("llada", json_grammar(SCHEMAS["person"])), wants_canvas=True)

    outcome = run_alone(engine_of("llada"), request)

    for canvas in outcome.canvases:
        masked = [token < 0 for token in canvas.token_ids]
        assert masked == sorted(masked)


@pytest.mark.sampled(0.1)
@pytest.mark.parametrize("at", range(0, 120, 6))
def test_an_error_in_any_tensor_operation_loses_nothing(at: int) -> None:
    engine = engine_of("llada")
    requests = [
        guided("llada", json_grammar(record(a=FLAG, b=DIGIT)), "0", temperature=1.0, top_logprobs=2),
        guided("llada", None, "1", max_tokens=6),
    ]
    expected = run_all(engine, requests)
    engine.throttle = type(engine.throttle)()
    outcomes: dict[str, Outcome] = {}
    for request in requests:
        collect(engine.submit(request), outcomes)
    while any(request.phase == "waiting" for request in engine._by_id.values()):
        collect(engine.step(), outcomes)

    with AllocationFailure(at) as failure:
        collect(engine.step(), outcomes)
    while engine.has_work:
        collect(engine.step(), outcomes)

    assert failure.count > 0
    assert {name: one.tokens for name, one in outcomes.items()} == {
        name: one.tokens for name, one in expected.items()
    }
    assert used_pages(engine) == 0
    assert engine.table.matches == {}


def test_a_step_without_memory_is_repeated_and_a_request_that_never_fits_gives_all_back() -> None:
    engine = engine_of("llada")
    request = guided("llada", json_grammar(SCHEMAS["person"]))
    expected = run_alone(engine, request)
    install(engine, {3, 5})
    try:
        assert run_alone(engine, request).tokens == expected.tokens
        install(engine, range(4, 1000))
        failed = run_alone(engine, request)
    finally:
        install(engine)
        engine.throttle = type(engine.throttle)()

    assert isinstance(failed.end, Failed)
    assert failed.end.reason is FailureReason.OUT_OF_MEMORY
    assert engine.table.matches == {}


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_a_cancelled_request_gives_everything_back(after: int) -> None:
    engine = engine_of("llada")
    grammar = json_grammar(record(**{f"cancelled_{after}": SCHEMAS["person"]}))  # compiled for the first time
    engine.submit(guided("llada", grammar, strategy=Strategy.QUOTA, value=1.0))
    for _ in range(after):
        engine.step()

    (end,) = engine.cancel("g")

    assert isinstance(end, Finished)
    assert end.reason is FinishReason.CANCELLED
    assert not engine.has_work or engine.step() is not None
    assert (engine.requests_waiting, engine.requests_running, used_pages(engine)) == (0, 0, 0)
    assert engine.table.matches == {}


def test_a_grammar_that_cannot_be_followed_fails_its_request_alone() -> None:
    bad = guided("llada", Grammar(GrammarKind.REGEX, "("), "bad")

    outcomes = run_all(engine_of("llada"), [bad, guided("llada", None, "free", max_tokens=8)])

    assert isinstance(failed := outcomes["bad"].end, Failed)
    assert failed.reason is FailureReason.GRAMMAR
    assert outcomes["free"].is_complete


def test_a_tokenizer_without_bytes_fails_the_request_alone() -> None:
    engine = make_engine(FIXTURE)
    bad = msgspec.structs.replace(make_request("bad"), grammar=json_grammar({}))

    outcomes = run_all(engine, [bad, make_request("free")])

    assert isinstance(failed := outcomes["bad"].end, Failed)
    assert failed.reason is FailureReason.GRAMMAR
    assert outcomes["free"].is_complete


def test_a_request_that_gives_way_goes_on_with_what_it_has() -> None:
    engine = make_engine(byte_model("sdar"), kv_pool_bytes=512 * 1024, max_num_seqs=4)
    schema = record(a=items(DIGIT, 12, 12), b=items(DIGIT, 12, 12))
    requests = [guided("sdar", json_grammar(schema), f"{number}", max_tokens=120) for number in range(4)]
    most = engine.capacity.pages_for(requests[0])
    taken = engine.course.store.pages - most - 4
    engine.course.store.admit(3)
    engine.course.store.extend(3, taken)

    outcomes = run_all(engine, requests[:3])

    assert engine.stats.preemptions > 0
    for outcome in outcomes.values():
        check("sdar", outcome, schema)
