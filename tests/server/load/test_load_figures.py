"""What is made of outcomes: percentiles, objectives, summaries, ratios, agreement with a server."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
from dllm_server.load.agreement import agreements
from dllm_server.load.comparison import compare
from dllm_server.load.duration import in_words, parse_seconds
from dllm_server.load.objective import Objective
from dllm_server.load.percentile import Spread, percentile
from dllm_server.load.server_counters import ServerCounters, Timing, read_counters
from dllm_server.load.summary import summarise
from hypothesis import given
from hypothesis import strategies as st

from tests.server.load.outcomes import make_outcome

numbers = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 50), (0.95, 95), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_a_percentile_is_the_nearest_rank(share: float, expected: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))
    assert math.isnan(Spread.of([]).mean)


@given(st.lists(numbers, min_size=1), st.floats(0, 1))
def test_a_percentile_is_the_least_value_that_the_share_does_not_exceed(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) <= share * len(values)


@given(st.lists(numbers, min_size=1))
def test_a_spread_is_ordered_and_holds_its_mean(values: list[float]) -> None:
    spread = Spread.of(values)

    assert min(values) <= spread.p50 <= spread.p95 <= spread.p99 <= spread.largest == max(values)
    assert min(values) - 1e-6 <= spread.mean <= spread.largest + 1e-6


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("2", 2.0), ("1.5s", 1.5), ("2m", 120.0), (" 1h ", 3600.0)]
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1 day", "-1s", "1e3", "\u0661s"])
def test_what_is_no_duration_says_what_one_is(text: str) -> None:
    with pytest.raises(ValueError, match="500ms"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0123, "12.3 ms"), (0.9996, "1.00 s"), (1234.5, "1,234.50 s"), (math.nan, "-")]
)
def test_seconds_are_said_with_their_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_an_objective_says_itself_as_it_is_written() -> None:
    assert str(Objective.parse("end=10s, first=1500ms")) == "first=1.5s,end=10s"


@pytest.mark.parametrize("text", ["", "first", "first=", "total=1s", "first=1s,first=2s", "end=0s", "end=x"])
def test_an_objective_that_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Objective.parse(text)


@pytest.mark.parametrize(
    ("objective", "is_met"),
    [
        ("first=0.5s", True),
        ("first=0.4s", False),
        ("gap=0.5s", True),
        ("gap=0.49s", False),
        ("end=1s", True),
        ("end=0.9s", False),
        ("first=1s,gap=1s,end=1s", True),
    ],
)
def test_an_objective_bounds_first_block_pauses_and_end(objective: str, is_met: bool) -> None:
    assert Objective.parse(objective).is_met_by(make_outcome(3.0, waits=(0.5, 1.0))) is is_met


def test_an_objective_counts_from_the_intended_arrival_and_no_failure_meets_it() -> None:
    late = make_outcome(3.0, lag=0.45, waits=(0.5,))

    assert not Objective.parse("first=0.2s").is_met_by(late)
    assert not Objective().is_met_by(make_outcome(error="timeout"))


def test_an_answer_without_text_has_its_first_block_at_its_end() -> None:
    silent = make_outcome(waits=(), end=2.0)

    assert Objective.parse("first=2s").is_met_by(silent)
    assert not Objective.parse("first=1s").is_met_by(silent)


def test_a_summary_counts_answers_tokens_and_errors_over_the_time_of_all() -> None:
    found = summarise(
        [
            [
                make_outcome(0.0, waits=(1.0, 2.0)),
                make_outcome(1.0, waits=(3.0,)),
                make_outcome(2.0, error="429", end=0.5),
            ]
        ],
        Objective.parse("first=1s"),
    )

    assert (found.requests, found.answered, found.errors) == (3, 2, {"429": 1})
    assert (found.seconds, found.answered_per_second, found.tokens_per_second) == (4.0, 0.5, 1.0)
    assert (found.good, found.good_per_second, found.good_share) == (1, 0.25, pytest.approx(1 / 3))
    assert (found.first.p50, found.first.largest, found.pause.mean, found.end.largest) == (1.0, 3.0, 1.0, 3.0)


def test_rounds_are_one_after_the_other() -> None:
    found = summarise([[make_outcome(waits=(2.0,))], [make_outcome(waits=(4.0,))]], Objective())

    assert (found.seconds, found.answered_per_second) == (6.0, pytest.approx(2 / 6))


def test_tokens_are_unknown_where_one_answer_does_not_count_them() -> None:
    found = summarise([[make_outcome(), make_outcome(completion_tokens=None)]], Objective())

    assert (found.prompt_tokens, found.completion_tokens) == (6, None)
    assert math.isnan(found.tokens_per_second)


def test_nothing_at_all_has_a_summary() -> None:
    found = summarise([[]], Objective())

    assert (found.requests, found.seconds) == (0, 0.0)
    assert math.isnan(found.good_share)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 5), st.sampled_from([None, "x"])), min_size=1))
def test_requests_are_answered_or_failed_and_the_good_among_the_answered(
    drawn: list[tuple[float, float, str | None]],
) -> None:
    outcomes = [make_outcome(at, waits=(wait,), error=error) for at, wait, error in drawn]

    found = summarise([outcomes], Objective.parse("end=1s"))

    assert found.answered + sum(found.errors.values()) == found.requests == len(drawn)
    assert found.good <= found.answered == found.end.count


def test_ratios_are_second_over_first_with_those_of_single_rounds() -> None:
    def of(*waits: float) -> list:
        return [make_outcome(waits=(wait,)) for wait in waits]

    first, second = [of(1.0), of(2.0)], [of(2.0), of(6.0)]
    single = [
        (summarise([a], Objective()), summarise([b], Objective())) for a, b in zip(first, second, strict=True)
    ]

    ratios = compare(summarise(first, Objective()), summarise(second, Objective()), single)

    found = {ratio.name: ratio for ratio in ratios}
    assert found["end to end p99"].ratio == 3.0
    assert (found["end to end p99"].least, found["end to end p99"].largest) == (2.0, 3.0)
    assert found["answered a second"].ratio == pytest.approx(3 / 8)
    assert math.isnan(found["pause between blocks p50"].ratio)


def test_what_a_server_counted_between_two_readings_is_beside_what_clients_saw() -> None:
    before = ServerCounters({"success": 5}, 50, 20, end=Timing(5, 5.0))
    after = ServerCounters(
        {"success": 7, "refused": 1}, 56, 24, Timing(2, 0.2), Timing(2, 1.0), Timing(7, 7.0)
    )
    outcomes = [
        make_outcome(lag=0.5, waits=(1.0, 1.6), queue_seconds=0.1),
        make_outcome(lag=0.5, waits=(1.0, 1.6), queue_seconds=0.1),
        make_outcome(error="429"),
    ]

    found = {pair.name: pair for pair in agreements(outcomes, after.since(before))}

    assert (found["requests answered"].clients, found["requests answered"].server) == (2, 2)
    assert (found["requests failed"].clients, found["requests failed"].server) == (1, 1)
    assert (found["prompt tokens"].difference, found["generated tokens"].difference) == (0.0, 0.0)
    assert found["queue"].difference == pytest.approx(0.0)
    assert (found["first block"].clients, found["first block"].server) == (0.5, 0.5)
    assert found["end to end"].difference == pytest.approx(0.1)


def test_figures_that_one_side_lacks_are_left_out() -> None:
    found = agreements([make_outcome(prompt_tokens=None)], ServerCounters({"success": 1}, 0, 2))

    assert [pair.name for pair in found] == ["requests answered", "generated tokens"]


def test_counters_are_read_from_several_servers_together() -> None:
    text = (
        '# TYPE dllm_requests counter\ndllm_requests_total{status="success"} 3\n'
        'dllm_requests_total{status="refused"} 1\n# TYPE vllm:prompt_tokens counter\n'
        'vllm:prompt_tokens_total{model_name="a"} 10\nvllm:prompt_tokens_total{model_name="b"} 5\n'
        '# TYPE dllm_queue_seconds histogram\ndllm_queue_seconds_bucket{le="+Inf"} 3\n'
        "dllm_queue_seconds_count 3\ndllm_queue_seconds_sum 0.3\n"
    )

    found = read_counters([text, text])

    assert found is not None
    assert found.requests == {"success": 6, "refused": 2}
    assert (found.prompt_tokens, found.completion_tokens) == (30, 0)
    assert asdict(found.queue) == {"count": 6, "seconds": 0.6}


@pytest.mark.parametrize("text", ["", "<html>no</html>", "# TYPE up gauge\nup 1\n"])
def test_what_is_no_servers_metrics_has_no_counters(text: str) -> None:
    assert read_counters([text]) is None
