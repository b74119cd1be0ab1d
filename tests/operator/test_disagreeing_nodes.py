from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from dllm_operator.cluster.pools import GpuType, Node, gpu_types
from hypothesis import given
from hypothesis import strategies as st

from tests.operator.objects import make_node


def make_gpu_node(name: str, memory_mib: int | None, shares: int = 1, **allocatable: str) -> Node:
    labels = {"nvidia.com/gpu.product": "NVIDIA-L40S", "nvidia.com/gpu.replicas": str(shares)}
    labels |= {"nvidia.com/gpu.sharing-strategy": "time-slicing" if shares > 1 else "none"}
    if memory_mib is not None:
        labels["nvidia.com/gpu.memory"] = str(memory_mib)
    return make_node(name, labels, **allocatable)


def room(gpu: GpuType) -> int | None:
    """MiB that one pod gets."""
    return gpu.memory_limit_mib or gpu.memory_mib


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        pytest.param([(46068, 4), (46068, 8)], 5758, id="numbers of shares"),
        pytest.param([(46068, 1), (46068, 4)], 11517, id="whether it is shared"),
        pytest.param([(23034, 1), (46068, 4)], 11517, id="less memory, and more in shares"),
        pytest.param([(None, 1), (46068, 1)], 46068, id="one that says nothing"),
        pytest.param([(None, 1), (None, 4)], None, id="none that says anything"),
    ],
)
def test_a_pod_fits_whichever_of_the_disagreeing_nodes_it_lands_on(
    nodes: list[tuple[int | None, int]], expected: int | None
) -> None:
    for order in permutations(nodes):
        [gpu] = gpu_types([make_gpu_node(f"node-{index}", *node) for index, node in enumerate(order)])

        assert room(gpu) == expected


@given(st.lists(st.tuples(st.integers(1024, 200_000), st.integers(1, 16)), min_size=1, max_size=4))
def test_what_a_type_gives_a_pod_is_what_the_least_of_its_nodes_gives(nodes: list[Any]) -> None:
    [gpu] = gpu_types([make_gpu_node(f"node-{index}", *node) for index, node in enumerate(nodes)])

    assert room(gpu) == min(memory // shares for memory, shares in nodes)
