from __future__ import annotations

import pytest
from dllm_operator.cluster.observe import Manifest
from dllm_operator.reporting.failures import is_serving

from tests.operator.objects import make_container, make_pod

READY = make_container({"running": {}}, ready=True)
NOT_READY = make_container({"running": {}}, ready=False)


def conditions(**statuses: str) -> list[Manifest]:
    return [{"type": kind, "status": status} for kind, status in statuses.items()]


@pytest.mark.parametrize(
    ("containers", "said", "serves"),
    [
        pytest.param([READY], conditions(PodScheduled="True", Ready="True"), True, id="ready"),
        pytest.param(
            [READY], conditions(ContainersReady="True", Ready="False"), False, id="a readiness gate is shut"
        ),
        pytest.param([READY], conditions(Ready="Unknown"), False, id="the node is silent"),
        pytest.param([READY], conditions(ContainersReady="True"), False, id="no word on readiness"),
        pytest.param([READY, NOT_READY], conditions(Ready="True"), False, id="one of two containers"),
        pytest.param([READY, READY], conditions(Ready="True"), True, id="both containers"),
    ],
)
def test_a_pod_serves_by_its_condition_and_by_every_container(
    containers: list[Manifest], said: list[Manifest], serves: bool
) -> None:
    assert is_serving(make_pod(*containers, conditions=said)) is serves


def test_a_pod_without_a_status_does_not_serve() -> None:
    assert not is_serving({"metadata": {"name": "chat-l40s-1"}})
