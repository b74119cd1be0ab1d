from __future__ import annotations

import re

import pytest
from dllm_operator.cluster.pools import MAX_POOL_NAME, find_type, gpu_types, normalise_product, pool_name
from hypothesis import given
from hypothesis import strategies as st

from tests.operator.objects import make_gpu, make_node

# Product, MiB and GPUs a node, as GPU feature discovery labels them.
WHOLE_GPUS = [
    ("NVIDIA-L4", 23034, 4, "l4"),
    ("NVIDIA-A10G", 23028, 4, "a10g"),
    ("NVIDIA-A100-SXM4-40GB", 40960, 8, "a100-sxm4-40gb"),
    ("NVIDIA-A100-SXM4-80GB", 81920, 8, "a100-sxm4-80gb"),
    ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", 9728, 7, "a100-sxm4-80gb-mig-1g-10gb"),
    ("NVIDIA-L40S", 46068, 8, "l40s"),
    ("NVIDIA-H100-80GB-HBM3", 81559, 8, "h100-80gb-hbm3"),
    ("NVIDIA-H200", 143771, 8, "h200"),
    ("NVIDIA-B200", 183359, 8, "b200"),
]
MIXED_MIG = {
    "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB",
    "nvidia.com/gpu.memory": "81920",
    "nvidia.com/mig.strategy": "mixed",
    "nvidia.com/mig-1g.10gb.product": "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb",
    "nvidia.com/mig-1g.10gb.memory": "9728",
    "nvidia.com/mig-3g.40gb.product": "NVIDIA-A100-SXM4-80GB-MIG-3g.40gb",
    "nvidia.com/mig-3g.40gb.memory": "40192",
}


def make_labels(product: str, memory_mib: int, count: int = 8, shares: int = 1) -> dict[str, str]:
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.memory": str(memory_mib),
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.family": "ampere",
        "nvidia.com/gpu.compute.major": "8",
        "nvidia.com/gpu.compute.minor": "0",
        "nvidia.com/gpu.replicas": str(shares),
        "nvidia.com/gpu.sharing-strategy": "time-slicing" if shares > 1 else "none",
        "nvidia.com/mig.strategy": "single" if "-MIG-" in product else "none",
    }


@pytest.mark.parametrize(("product", "memory", "count", "_"), WHOLE_GPUS, ids=[row[0] for row in WHOLE_GPUS])
def test_a_node_of_whole_gpus_or_of_one_kind_of_slice_is_one_type(
    product: str, memory: int, count: int, _: str
) -> None:
    [gpu] = gpu_types([make_node(labels=make_labels(product, memory, count))])

    assert (gpu.product, gpu.selector) == (product, {"nvidia.com/gpu.product": product})
    assert (gpu.resource, gpu.memory_mib, gpu.shares) == ("nvidia.com/gpu", memory, 1)
    assert gpu.memory_limit_mib is None


@pytest.mark.parametrize(
    ("product", "allocatable", "resource"),
    [
        pytest.param("NVIDIA-L40S-SHARED", {"gpu": "32"}, "nvidia.com/gpu", id="suffix"),
        pytest.param("NVIDIA-L40S", {"gpu": "32"}, "nvidia.com/gpu", id="label without suffix"),
        pytest.param(
            "NVIDIA-L40S", {"gpu.shared": "32"}, "nvidia.com/gpu.shared", id="renamed resource without suffix"
        ),
    ],
)
def test_a_time_sliced_gpu_gives_each_pod_its_share_of_the_memory(
    product: str, allocatable: dict[str, str], resource: str
) -> None:
    labels = make_labels(product, 46068, shares=4)

    [gpu] = gpu_types([make_node(labels=labels, **allocatable)])

    assert (gpu.product, gpu.resource, gpu.shares) == (product, resource, 4)
    assert (gpu.memory_mib, gpu.memory_limit_mib) == (46068, 11517)


def test_a_shared_gpu_whose_label_tells_no_number_of_shares_counts_as_one() -> None:
    labels = make_labels("NVIDIA-L40S-SHARED", 46068) | {"nvidia.com/gpu.replicas": "many"}

    [gpu] = gpu_types([make_node(labels=labels)])

    assert (gpu.shares, gpu.memory_limit_mib) == (1, None)


def test_each_profile_of_mixed_slices_is_a_type_with_a_resource_of_its_own() -> None:
    node = make_node(labels=MIXED_MIG, **{"gpu": "0", "mig-1g.10gb": "4", "mig-3g.40gb": "1"})

    small, large = gpu_types([node])

    assert small.product == "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"
    assert small.selector == {"nvidia.com/mig-1g.10gb.product": small.product}
    assert (small.resource, small.memory_mib) == ("nvidia.com/mig-1g.10gb", 9728)
    assert (large.resource, large.memory_mib) == ("nvidia.com/mig-3g.40gb", 40192)


@pytest.mark.parametrize(
    ("whole", "products"),
    [
        pytest.param({"gpu": "0"}, 2, id="none left whole"),
        pytest.param({}, 2, id="no whole GPU advertised"),
        pytest.param({"gpu": "4"}, 3, id="four left whole"),
    ],
)
def test_a_sliced_nodes_whole_gpu_is_a_type_only_where_some_are_left_whole(
    whole: dict[str, str], products: int
) -> None:
    node = make_node(labels=MIXED_MIG, **{"mig-1g.10gb": "4", "mig-3g.40gb": "1"} | whole)

    assert len(gpu_types([node])) == products


@pytest.mark.parametrize("labels", [{}, {"nvidia.com/gpu.present": "true"}], ids=["cpu", "undiscovered"])
def test_a_node_without_a_product_has_no_type(labels: dict[str, str]) -> None:
    assert gpu_types([make_node(labels=labels)]) == ()


@pytest.mark.parametrize("order", [1, -1], ids=["small first", "large first"])
def test_nodes_that_disagree_about_memory_count_as_the_smallest(order: int) -> None:
    memories = [40960, 40536][::order]
    nodes = [
        make_node(f"node-{index}", make_labels("NVIDIA-A100-SXM4-40GB", memory))
        for index, memory in enumerate(memories)
    ]

    [gpu] = gpu_types(nodes)

    assert gpu.memory_mib == 40536


@pytest.mark.parametrize("text", ["", "0", "-1", "4.5", "unknown"])
def test_a_memory_label_that_is_no_positive_number_is_unknown(text: str) -> None:
    labels = make_labels("NVIDIA-L4", 1) | {"nvidia.com/gpu.memory": text}

    [gpu] = gpu_types([make_node(labels=labels)])

    assert gpu.memory_mib is None


def test_types_come_in_the_order_of_their_products_whatever_the_order_of_the_nodes() -> None:
    nodes = [make_node(f"node-{i}", make_labels(row[0], row[1])) for i, row in enumerate(WHOLE_GPUS * 2)]

    found = gpu_types(nodes)

    assert [gpu.product for gpu in found] == sorted(row[0] for row in WHOLE_GPUS)
    assert gpu_types(reversed(nodes)) == found


@pytest.mark.parametrize(
    ("spelling", "product"),
    [
        ("NVIDIA L40S", "NVIDIA-L40S"),
        ("nvidia-l40s", "NVIDIA-L40S"),
        ("L40S", "NVIDIA-L40S"),
        ("  nvidia   l40s ", "NVIDIA-L40S"),
        ("l40s-shared", "NVIDIA-L40S-SHARED"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA-H100-80GB-HBM3"),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "NVIDIA-A100-SXM4-80GB-MIG-1G.10GB"),
        ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "NVIDIA-A100-SXM4-80GB-MIG-1G.10GB"),
    ],
)
def test_a_product_has_one_normal_spelling(spelling: str, product: str) -> None:
    assert normalise_product(spelling) == product
    assert normalise_product(product) == product


@pytest.mark.parametrize(
    ("spelling", "is_found"),
    [
        ("NVIDIA L40S", True),
        ("l40s", True),
        ("nvidia-l40s", True),
        ("L40", False),
        ("L4", False),
        ("L40S-SHARED", False),
    ],
)
def test_a_type_is_found_by_any_spelling_of_the_whole_product(spelling: str, is_found: bool) -> None:
    gpu = make_gpu("NVIDIA-L40S")

    assert find_type(spelling, [make_gpu("NVIDIA-A10G"), gpu]) == (gpu if is_found else None)


@pytest.mark.parametrize(
    ("product", "_memory", "_count", "name"), WHOLE_GPUS, ids=[row[3] for row in WHOLE_GPUS]
)
def test_a_pool_is_named_after_its_product(product: str, _memory: int, _count: int, name: str) -> None:
    assert pool_name(product) == name


words = st.text("abcdefgxyz0123456789", min_size=1, max_size=12)
products = st.lists(words, min_size=1, max_size=8).map("-".join)


@given(products, products)
def test_different_products_have_different_names_that_are_dns_labels(first: str, second: str) -> None:
    for name in (pool_name(first), pool_name(second)):
        assert len(name) <= MAX_POOL_NAME
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert (pool_name(first) == pool_name(second)) is (normalise_product(first) == normalise_product(second))


@given(st.text("abc019 -._", min_size=1, max_size=80).filter(lambda text: any(map(str.isalnum, text))))
def test_a_name_is_a_dns_label_however_odd_the_product(text: str) -> None:
    name = pool_name(text)

    assert len(name) <= MAX_POOL_NAME
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
