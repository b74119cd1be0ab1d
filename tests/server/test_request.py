from __future__ import annotations

import pytest
from dllm_server.engine.requests.request import Phase, Request
from engines import make_request

LEGAL = {
    (Phase.WAITING, Phase.REFRESH),
    (Phase.WAITING, Phase.FINISHED),
    (Phase.REFRESH, Phase.REFRESH),
    (Phase.REFRESH, Phase.REUSE),
    (Phase.REFRESH, Phase.FINISHED),
    (Phase.REUSE, Phase.REFRESH),
    (Phase.REUSE, Phase.REUSE),
    (Phase.REUSE, Phase.FINISHED),
    (Phase.REFRESH, Phase.DRAINING),
    (Phase.REUSE, Phase.DRAINING),
    (Phase.DRAINING, Phase.FINISHED),
    (Phase.WAITING, Phase.PREFILL),
    (Phase.WAITING, Phase.DENOISE),
    (Phase.PREFILL, Phase.PREFILL),
    (Phase.PREFILL, Phase.DENOISE),
    (Phase.PREFILL, Phase.WAITING),
    (Phase.PREFILL, Phase.DRAINING),
    (Phase.PREFILL, Phase.FINISHED),
    (Phase.DENOISE, Phase.PREFILL),
    (Phase.DENOISE, Phase.DENOISE),
    (Phase.DENOISE, Phase.DRAINING),
    (Phase.DENOISE, Phase.WAITING),
    (Phase.DENOISE, Phase.FINISHED),
}


@pytest.mark.parametrize("after", Phase)
@pytest.mark.parametrize("before", Phase)
def test_only_legal_transitions_happen(before: Phase, after: Phase) -> None:
    request = Request(make_request(), 0.0, pages=1, phase=before)

    if (before, after) in LEGAL:
        request.enter(after)
        assert request.phase is after
    else:
        with pytest.raises(ValueError, match=f"cannot go from {before} to {after}"):
            request.enter(after)
        assert request.phase is before


@pytest.mark.parametrize(
    ("interval", "phases"),
    [(None, "uuuuuu"), (1, "rrrrrr"), (2, "ururur"), (3, "uuruur")],
)
def test_the_refresh_interval_says_which_steps_of_a_block_refresh(interval: int | None, phases: str) -> None:
    request = Request(make_request(refresh_interval=interval), 0.0, pages=1)
    seen = ""
    for steps in range(1, 7):
        request.steps_in_block = steps
        seen += "r" if request.next_phase_in_block() is Phase.REFRESH else "u"

    assert seen == phases


def test_a_waiting_request_has_waited_no_queue_seconds_yet() -> None:
    assert Request(make_request(), arrived_seconds=5.0, pages=1).stats().queue_seconds == 0.0


def test_queue_seconds_run_from_arrival_to_admission() -> None:
    request = Request(make_request(), arrived_seconds=5.0, pages=1, slot=0, admitted_seconds=7.5)

    assert request.stats().queue_seconds == 2.5


@pytest.mark.parametrize(
    ("phases", "opened"),
    [
        pytest.param([Phase.REFRESH, Phase.REUSE, Phase.REFRESH], 1.0, id="the first of two refreshes"),
        pytest.param([Phase.PREFILL, Phase.PREFILL, Phase.DENOISE], 2.0, id="the last piece of the prompt"),
        pytest.param([Phase.DENOISE, Phase.PREFILL, Phase.DENOISE], 0.0, id="a prefill inside the block"),
    ],
)
def test_a_block_is_opened_by_its_first_refresh_or_by_what_prefills_before_it(
    phases: list[Phase], opened: float
) -> None:
    request = Request(make_request(), 0.0, pages=1)

    for now, phase in enumerate(phases, start=1):
        request.count_result(phase, float(now))

    assert (request.stats().times.opened_seconds, request.stats().times.told_seconds) == (opened, 3.0)
