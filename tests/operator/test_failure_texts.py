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
from dllm_server.cause import SENTENCES, Cause, Explanation
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


def told(reason: TerminationReason, cause: Cause, **numbers: int) -> str:
    return Termination.of_start(reason, Explanation(cause, numbers)).to_json()


OUT_OF_MEMORY = told(TerminationReason.DEVICE_OUT_OF_MEMORY, Cause.DEVICE_MEMORY_AT_START)
TOO_LONG = told(TerminationReason.BUDGET_EXCEEDED, Cause.BLOCK_ABOVE_LEN, block_length=64, max_model_len=32)


@pytest.mark.parametrize(
    ("pod", "message"),
    [
        pytest.param(crashed(OUT_OF_MEMORY, 86), SENTENCES[Cause.DEVICE_MEMORY_AT_START], id="device memory"),
        pytest.param(
            crashed(OUT_OF_MEMORY, 137),
            SENTENCES[Cause.DEVICE_MEMORY_AT_START],
            id="device memory, and the exit code lost",
        ),
        pytest.param(
            crashed(TOO_LONG), "block_length 64 exceeds max_model_len 32: lower block_length", id="refused"
        ),
        pytest.param(
            crashed(Termination.of_engine(-9).to_json(), 137),
            "exit code 137 after 2 restarts: the engine process was ended by signal 9",
            id="the engine died",
        ),
        pytest.param(
            crashed('{"reason": "StartFailed", "message": "of an older server", "exit_code": 1}'),
            SENTENCES[Cause.START],
            id="a server that tells no cause",
        ),
        pytest.param(
            crashed("boom"), "exit code 1 after 2 restarts: the container's log says why", id="the log"
        ),
        pytest.param(
            crashed(None), "exit code 1 after 2 restarts: the container's log says why", id="no text at all"
        ),
    ],
)
def test_the_servers_end_is_told_in_known_words(pod: Manifest, message: str) -> None:
    assert message_of(pod) == message


SECRET = "hunter2"
REASONS = (
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "StartError",
    "ContainerCannotRun",
    "Error",
    "OOMKilled",
)
FORMS = (
    SECRET,
    f"Traceback: {SECRET}\n",
    f'{{"reason": "StartFailed", "message": "{SECRET}", "exit_code": 1}}',
    f'{{"reason": "StartFailed", "cause": "{SECRET}", "numbers": {{"{SECRET}": 1}}, "exit_code": 1}}',
    f'{{"reason": "DeviceOutOfMemory", "message": "{SECRET}", "cause": "Start", "exit_code": 86}}',
    f'secret "{SECRET} and" not found',
    f'secret "a" not found {SECRET}',
    f"failed to authorize: GET https://auth/?account={SECRET}: 401 Unauthorized",
    f'runc create failed: invalid environment variable "PASSWORD={SECRET}": no such file or directory',
)


@pytest.mark.parametrize("text", FORMS)
@pytest.mark.parametrize("reason", REASONS)
def test_no_text_of_a_container_of_its_runtime_or_of_a_registry_is_repeated(reason: str, text: str) -> None:
    ended = {"terminated": {"exitCode": 1, "reason": reason, "message": text}}
    waiting = {"waiting": {"reason": reason, "message": text}}
    for container in (
        make_container(waiting, restartCount=1, image="org/x:1"),
        make_container(ended, restartCount=1, image="org/x:1"),
        make_container({"running": {}}, ended, restartCount=1, image="org/x:1"),
    ):
        for pod in (make_pod(container), make_pod(make_container(), initContainerStatuses=[container])):
            failure = classify(pod)
            assert failure is None or SECRET not in failure.message


@pytest.mark.parametrize(
    ("reason", "text", "told"),
    [
        ("CreateContainerConfigError", 'secret "absent" not found', 'secret "absent" not found'),
        ("CreateContainerConfigError", 'configmap "a.b" not found', 'configmap "a.b" not found'),
        (
            "CreateContainerConfigError",
            "couldn't find key token in Secret team-a/hub",
            "couldn't find key token in Secret team-a/hub",
        ),
        (
            "CreateContainerConfigError",
            'container has runAsNonRoot and image will run as root (pod: "p", container: engine)',
            "the image runs as root, or its user is no number: give it a numeric USER other than 0",
        ),
        ("CreateContainerConfigError", "something new", "the events of the pod say why"),
    ],
)
def test_what_the_kubelet_lacks_is_named(reason: str, text: str, told: str) -> None:
    pod = make_pod(make_container({"waiting": {"reason": reason, "message": text}}), phase="Pending")

    assert message_of(pod) == f"{reason}: {told}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("docker.io/org/x:1: not found", "the registry has no such image"),
        ("pull access denied, repository does not exist or may require authorization", "refuses access"),
        ("failed to authorize: 401 Unauthorized", "refuses access: check podTemplate.imagePullSecrets"),
        ("dial tcp: lookup registry.example on 10.0.0.1:53: no such host", "cannot be reached"),
        ("dial tcp 10.0.0.1:443: connect: connection refused", "cannot be reached"),
        ("x509: certificate signed by unknown authority", "certificate is not trusted"),
        ("toomanyrequests: You have reached your pull rate limit", "refuses more requests"),
        ('couldn\'t parse image name "a b": invalid reference format', "the name is not that of an image"),
        ("no space left on device", "the node's disk is full"),
    ],
)
def test_a_failed_pull_names_the_image_and_the_kind_of_trouble(text: str, told: str) -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": text}}

    message = message_of(make_pod(make_container(waiting, image="org/x:1"), phase="Pending"))

    assert message.startswith("ErrImagePull: image org/x:1: ")
    assert told in message


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
