from __future__ import annotations

import pytest
from dllm_operator.cluster.observe import Manifest
from dllm_operator.reporting.failures import (
    MAX_MESSAGE,
    Failure,
    FailureReason,
    classify,
    shorten,
    worst_failure,
)
from dllm_server.termination import Termination, TerminationReason

from tests.operator.objects import make_container, make_pod


def crashed(message: str | None, exit_code: int = 1, reason: str = "Error") -> Manifest:
    ended = {"exitCode": exit_code, "reason": reason} | ({} if message is None else {"message": message})
    return make_pod(make_container({"running": {}}, {"terminated": ended}, restartCount=2))


def message_of(pod: Manifest) -> str:
    failure = classify(pod)
    assert failure is not None
    return failure.message


def test_reasons_are_spelled_as_users_match_them_in_the_order_they_are_looked_for() -> None:
    assert [str(reason) for reason in FailureReason] == [
        "OOMKilled",
        "CUDAOutOfMemory",
        "ImagePullFailed",
        "StartFailed",
        "CrashLoop",
        "Evicted",
        "PodFailed",
        "PodsRefused",
        "Unschedulable",
        "NodeLost",
        "VolumesNotMounted",
    ]


@pytest.mark.parametrize(
    ("pod", "message"),
    [
        pytest.param(
            crashed(Termination.of_start(TerminationReason.DEVICE_OUT_OF_MEMORY, "no room").to_json(), 86),
            "no room",
            id="out of device memory",
        ),
        pytest.param(
            crashed(Termination.of_start(TerminationReason.DEVICE_OUT_OF_MEMORY, "no room").to_json(), 137),
            "no room",
            id="out of device memory, and the exit code lost",
        ),
        pytest.param(
            crashed(Termination.of_start(TerminationReason.BUDGET_EXCEEDED, "30 of 24 GiB").to_json()),
            "30 of 24 GiB",
            id="refused",
        ),
        pytest.param(
            crashed(Termination.of_engine(-9).to_json(), 137),
            "exit code 137 after 2 restarts: the engine process was ended by signal 9",
            id="the engine died",
        ),
        pytest.param(crashed("boom"), "exit code 1 after 2 restarts: boom", id="the log"),
        pytest.param(crashed(None), "exit code 1 after 2 restarts: Error", id="no text at all"),
    ],
)
def test_the_servers_own_words_are_shown_and_not_the_json_they_came_in(pod: Manifest, message: str) -> None:
    assert message_of(pod) == message


@pytest.mark.parametrize("length", [MAX_MESSAGE - 1, MAX_MESSAGE, MAX_MESSAGE + 1])
def test_only_a_text_beyond_the_limit_is_cut_and_says_so(length: int) -> None:
    text = shorten("x" * length)

    assert len(text) == min(length, MAX_MESSAGE)
    assert text.startswith("...") is (length > MAX_MESSAGE)


def test_a_failure_names_its_pod() -> None:
    assert str(Failure(FailureReason.EVICTED, "low on disk", "chat-1")) == "pod chat-1: low on disk"


def test_a_pod_that_crashes_is_reported_beside_a_later_one_that_serves() -> None:
    later = make_pod(name="chat-l40s-2", born="2026-01-01T01:00:00Z", is_ready=True)

    failure = worst_failure([crashed("boom"), later])

    assert failure is not None
    assert failure.reason is FailureReason.CRASH_LOOP
