"""Grammars behind a marker, through real engines: free text is what it is without, and what follows a marker
is held to the grammar, whatever the model says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from byte_tokenizer import byte_model
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import Finished, FinishReason, Generate
from dllm_server.settings import Confidence, Strategy
from dllm_server.structure.match import GrammarMatch
from engines import Outcome, collect, make_engine, run_all, run_alone, used_pages
from faulty_runner import AllocationFailure, install
from guided_requests import engine_of, guided, json_grammar
from schema_cases import DIGIT, FLAG, items, record

FAMILIES = ("llada", "dream", "sdar", "sdar_b8", "llada2", "llada21", "fast_dllm_v2")
GRAMMAR = json_grammar(record(ok=FLAG, n=items(DIGIT, 1, 2)))


def free(family: str, request_id: str = "f", **changes: Any) -> Generate:
    """Without an end of its own."""
    changes = {"temperature": 1.0, "seed": 1, "max_tokens": 40, "value": 0.1} | changes
    return msgspec.structs.replace(guided(family, None, request_id, **changes), stop_token_ids=[])


def marked(request: Generate, marker: int) -> Generate:
    return msgspec.structs.replace(
        request, request_id=f"marked {request.request_id}", grammar=GRAMMAR, grammar_after=marker
    )


def likely_marker(outcome: Outcome) -> int:
    """A token that the model says soon."""
    return outcome.tokens[1]


def unlikely_marker(family: str, outcome: Outcome) -> int:
    config = engine_of(family).runner.model.config
    said = {*config.eos_token_ids, config.mask_token_id}
    said |= {token for canvas in outcome.canvases for token in canvas.token_ids}
    return next(token for token in range(config.vocab_size) if token not in said)


def texts_behind(outcome: Outcome, marker: int, engine: Engine) -> int:
    """How many whole texts of the grammar follow markers; all of what follows one is of the grammar."""
    compiled = engine.grammars.compiled(GRAMMAR).result()
    match: GrammarMatch | None = None
    whole = 0
    for token in outcome.tokens:
        if match is not None:
            match.advance([token])  # raises where it is not allowed
            if match.is_over:
                match, whole = None, whole + 1
        elif token == marker:
            match = GrammarMatch(compiled, engine.grammars.mask_token_id)
    return whole


@pytest.mark.sampled(0.4)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_follows_a_marker_is_of_the_grammar_alone_as_beside_others(family: str) -> None:
    engine = engine_of(family)
    requests = [free(family, f"{seed}", seed=seed) for seed in range(4)]
    without = run_all(engine, requests)
    markers = {one.request_id: likely_marker(without[one.request_id]) for one in requests}
    held = [marked(one, markers[one.request_id]) for one in requests]
    held[3] = msgspec.structs.replace(held[3], stop_token_ids=guided(family, None).stop_token_ids)

    together = run_all(engine, [*requests, *held])

    whole = 0
    for request, one in zip(requests, held, strict=True):
        outcome, marker = together[one.request_id], markers[request.request_id]
        assert isinstance(outcome.end, Finished), outcome.end
        whole += texts_behind(outcome, marker, engine)
        assert run_alone(engine, one).tokens == outcome.tokens
        assert together[request.request_id].tokens == without[request.request_id].tokens
    assert whole > 0
    assert used_pages(engine) == 0
    assert engine.table.matches == {}


@pytest.mark.sampled(0.6)
@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_marker_nothing_changes(family: str) -> None:
    engine = engine_of(family)
    request = msgspec.structs.replace(free(family), wants_canvas=True)
    without = run_alone(engine, request)

    held = run_alone(engine, marked(request, unlikely_marker(family, without)))

    assert held.tokens == without.tokens
    assert held.logprobs == without.logprobs
    assert held.stats.forward_passes == without.stats.forward_passes


def test_tokens_that_are_edited_are_not_once_a_marker_is_there() -> None:
    engine = engine_of("llada21")
    assert free("llada21").diffusion.strategy is Strategy.JOINT_THRESHOLD
    ends = []
    for seed in range(5):
        request = free("llada21", seed=seed)
        marker = likely_marker(run_alone(engine, request))
        outcome = run_alone(engine, marked(request, marker))
        ends.append(texts_behind(outcome, marker, engine))

    assert sum(ends) > 0


@pytest.mark.sampled(0.25)
@pytest.mark.parametrize("confidence", Confidence)
@pytest.mark.parametrize("strategy", [Strategy.QUOTA, Strategy.SEQUENTIAL, Strategy.ENTROPY_BOUND])
def test_every_order_of_commits_gives_whole_texts(strategy: Strategy, confidence: Confidence) -> None:
    """Of ``quota`` and a random confidence the marker comes between others that are still masked."""
    engine = engine_of("llada")
    request = free("llada", strategy=strategy, value=1.0, confidence=confidence, top_logprobs=2)
    marker = likely_marker(run_alone(engine, request))

    outcome = run_alone(engine, marked(request, marker))

    assert texts_behind(outcome, marker, engine) > 0
    assert len(outcome.alternatives) == len(outcome.tokens)
    assert all(dict(names) for names in outcome.alternatives)


def test_canvases_show_nothing_behind_a_marker_that_is_not_of_the_grammar() -> None:
    engine = engine_of("llada")
    request = free("llada", strategy=Strategy.QUOTA, value=1.0, confidence=Confidence.RANDOM)
    marker = likely_marker(run_alone(engine, request))

    outcome = run_alone(engine, msgspec.structs.replace(marked(request, marker), wants_canvas=True))

    compiled = engine.grammars.compiled(GRAMMAR).result()
    first = outcome.tokens.index(marker)
    seen = 0
    for canvas in outcome.canvases:
        place = first - canvas.block_start
        if 0 <= place < len(canvas.token_ids) and canvas.token_ids[place] == marker:
            behind = canvas.token_ids[place + 1 :]
            shown = [token for token in behind if token >= 0]
            assert shown == behind[: len(shown)]
            match = GrammarMatch(compiled, engine.grammars.mask_token_id)
            for token in shown:
                if match.is_over:
                    break
                match.advance([token])
            seen += 1
    assert seen > 0


def test_a_text_that_is_cut_is_the_beginning_of_one() -> None:
    engine = engine_of("llada")
    request = free("llada")
    without = run_alone(engine, request)
    marker = likely_marker(without)
    cut = msgspec.structs.replace(request, max_tokens=without.tokens.index(marker) + 5)

    outcome = run_alone(engine, marked(cut, marker))

    assert isinstance(outcome.end, Finished)
    texts_behind(outcome, marker, engine)


@pytest.mark.sampled(0.1)
@pytest.mark.parametrize("at", range(0, 400, 40))
def test_an_error_in_any_tensor_operation_loses_nothing(at: int) -> None:
    engine = engine_of("llada")
    request = free("llada", max_tokens=24)
    request = marked(request, likely_marker(run_alone(engine, request)))
    expected = run_alone(engine, request)
    engine.throttle = type(engine.throttle)()
    outcomes: dict[str, Outcome] = {}
    collect(engine.submit(request), outcomes)

    with AllocationFailure(at):
        while engine.has_work:
            collect(engine.step(), outcomes)

    assert outcomes[request.request_id].tokens == expected.tokens
    assert used_pages(engine) == 0
    assert engine.table.matches == {}


def test_steps_without_memory_are_repeated() -> None:
    engine = engine_of("sdar")
    request = free("sdar")
    request = marked(request, likely_marker(run_alone(engine, request)))
    expected = run_alone(engine, request)
    install(engine, set(range(2, 60, 3)))
    try:
        repeated = run_alone(engine, request)
    finally:
        install(engine)
        engine.throttle = type(engine.throttle)()

    assert repeated.tokens == expected.tokens


@pytest.mark.parametrize("family", ["sdar", "llada21"])
def test_a_request_that_gives_way_goes_on_with_what_it_has(family: str) -> None:
    engine = make_engine(byte_model(family), kv_pool_bytes=512 * 1024, max_num_seqs=4)
    plain = [free(family, f"{number}", max_tokens=120, seed=number) for number in range(4)]
    without = run_all(engine_of(family), plain)
    markers = [likely_marker(without[one.request_id]) for one in plain]
    requests = [marked(one, marker) for one, marker in zip(plain, markers, strict=True)]
    taken = engine.course.store.pages - engine.capacity.pages_for(requests[0]) - 1
    engine.course.store.admit(3)
    engine.course.store.extend(3, taken)

    outcomes = run_all(engine, requests[:3])

    assert engine.stats.preemptions > 0
    for request, marker in zip(requests[:3], markers, strict=False):
        outcome = outcomes[request.request_id]
        assert isinstance(outcome.end, Finished)
        assert outcome.end.reason in (FinishReason.STOP, FinishReason.LENGTH)
        texts_behind(outcome, marker, engine)


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_cancelled_request_gives_everything_back(after: int) -> None:
    engine = engine_of("llada")
    request = free("llada", strategy=Strategy.QUOTA, value=1.0)
    request = marked(request, likely_marker(run_alone(engine, request)))
    engine.submit(request)
    for _ in range(after):
        engine.step()

    engine.cancel(request.request_id)

    assert not engine.has_work
    assert used_pages(engine) == 0
    assert engine.table.matches == {}
