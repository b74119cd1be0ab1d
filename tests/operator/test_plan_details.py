from __future__ import annotations

from typing import Any

import pytest
from dllm_operator.planning.plan import GPU_TOLERATION, Plan, plan

from tests.operator.objects import make_gpu, make_observed, make_spec

SHARED = make_gpu("NVIDIA-L40S-SHARED", memory_mib=46068, shares=4, resource="nvidia.com/gpu.shared")


def make_plan(**spec: Any) -> Plan:
    return plan("chat", make_spec(**spec), make_observed(gpu_types=(SHARED,)))


def test_gpu_nodes_are_tolerated_whatever_the_value_of_their_taint() -> None:
    assert GPU_TOLERATION == {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def test_a_pool_on_the_cpus_of_gpu_nodes_selects_the_nodes_and_takes_nothing_of_their_gpus() -> None:
    [pool] = make_plan(device="cpu", gpuPools=[{"name": "a", "product": "L40S-SHARED"}]).pools

    assert pool.node_selector == SHARED.selector
    assert (pool.gpu_resource, pool.gpus_per_replica) == (None, 0)
    assert (pool.tolerations, pool.engine) == ((), {})


@pytest.mark.parametrize(
    ("pool", "resource", "engine"),
    [
        pytest.param(
            {"product": "L40S-SHARED"}, "nvidia.com/gpu.shared", {"gpu_memory_limit": "11517MiB"}, id="shared"
        ),
        pytest.param({"product": "L40S"}, "nvidia.com/gpu", {}, id="whole, and not there yet"),
        pytest.param({}, "nvidia.com/gpu", {}, id="any"),
    ],
)
def test_a_pool_asks_for_the_resource_of_its_product(
    pool: dict[str, Any], resource: str, engine: dict[str, Any]
) -> None:
    [planned] = make_plan(gpuPools=[{"name": "a"} | pool]).pools

    assert (planned.gpu_resource, planned.gpus_per_replica, planned.engine) == (resource, 1, engine)
