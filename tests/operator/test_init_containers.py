from __future__ import annotations

import pytest
from dllm_operator.cluster.observe import Manifest
from dllm_operator.reporting.failures import classify
from dllm_operator.reporting.reason import FailureReason

from tests.operator.objects import make_container, make_pod


def ended(exit_code: int, reason: str = "Error") -> Manifest:
    return {"terminated": {"exitCode": exit_code, "reason": reason}}


DONE = ended(0, "Completed")


def make_pod_with_init(state: Manifest, last: Manifest | None = None, restarts: int = 0) -> Manifest:
    """A pod that loads its model (nothing terminated) with one init container in that state."""
    init = make_container(state, last, name="init", restartCount=restarts)
    return make_pod(initContainerStatuses=[init])


@pytest.mark.parametrize(
    ("last", "restarts"),
    [
        pytest.param(None, 0, id="at once"),
        pytest.param(DONE, 1, id="twice, since the node restarted"),
        pytest.param(ended(1), 1, id="after a failed attempt"),
        pytest.param(ended(137, "OOMKilled"), 3, id="after an OOM kill"),
    ],
)
def test_an_init_container_that_has_ended_well_is_no_failure(last: Manifest | None, restarts: int) -> None:
    assert classify(make_pod_with_init(DONE, last, restarts)) is None


@pytest.mark.parametrize(
    ("state", "last", "reason"),
    [
        pytest.param(ended(3), None, FailureReason.CRASH_LOOP, id="failed"),
        pytest.param({"running": {}}, ended(3), FailureReason.CRASH_LOOP, id="tries again"),
        pytest.param(ended(137, "OOMKilled"), None, FailureReason.OOM_KILLED, id="killed"),
        pytest.param(
            {"waiting": {"reason": "ErrImagePull"}}, None, FailureReason.IMAGE_PULL_FAILED, id="no image"
        ),
    ],
)
def test_an_init_container_that_holds_its_pod_back_is_a_failure(
    state: Manifest, last: Manifest | None, reason: FailureReason
) -> None:
    failure = classify(make_pod_with_init(state, last, restarts=1))

    assert failure is not None
    assert failure.reason is reason
