from __future__ import annotations

from typing import Any

import pytest
from dllm_operator.cluster.labels import child_name
from dllm_operator.cluster.observe import Integration
from dllm_operator.planning.plan import GPU_TOLERATION, Plan, divide, plan
from hypothesis import given
from hypothesis import strategies as st

from tests.operator.objects import make_gpu, make_observed, make_spec

L4 = make_gpu("NVIDIA-L4", memory_mib=23034)
L40S = make_gpu("NVIDIA-L40S", memory_mib=46068)
SHARED = make_gpu("NVIDIA-L40S-SHARED", memory_mib=46068, shares=4)
H100 = make_gpu("NVIDIA-H100-80GB-HBM3", memory_mib=81559)
AUTOSCALING = {
    "minReplicas": 2,
    "maxReplicas": 8,
    "metric": {"target": 4},
    "prometheusAddress": "http://p:9090",
}


def make_plan(observed: dict[str, Any] | None = None, **spec: Any) -> Plan:
    return plan("chat", make_spec(**spec), make_observed(**({"gpu_types": (L4, L40S)} | (observed or {}))))


def names(planned: Plan) -> list[str]:
    return [pool.name for pool in planned.pools]


def replicas(planned: Plan) -> list[int | None]:
    return [pool.replicas for pool in planned.pools]


@pytest.mark.parametrize(
    ("found", "existing", "order"),
    [
        pytest.param((L4, L40S), (), ["l4", "l40s"], id="nothing exists"),
        pytest.param((L4, L40S), ("l40s", "l4"), ["l40s", "l4"], id="existing order stands"),
        pytest.param(
            (H100, L4, L40S), ("l40s", "l4"), ["l40s", "l4", "h100-80gb-hbm3"], id="a new type is last"
        ),
        pytest.param((L40S,), ("l4", "l40s"), ["l40s"], id="a type that left leaves the rest"),
        pytest.param((), ("l4",), [], id="no GPU nodes"),
    ],
)
def test_discovery_gives_one_pool_a_type_in_a_lasting_order(
    found: tuple[Any, ...], existing: tuple[str, ...], order: list[str]
) -> None:
    assert names(make_plan({"gpu_types": found, "pool_order": existing})) == order


def test_a_discovered_pool_asks_for_one_gpu_of_its_type() -> None:
    [pool] = make_plan({"gpu_types": (L40S,)}).pools

    assert (pool.deployment, pool.product, pool.memory_mib) == ("chat-l40s", "NVIDIA-L40S", 46068)
    assert (pool.gpu_resource, pool.gpus_per_replica, pool.replicas) == ("nvidia.com/gpu", 1, 1)
    assert pool.node_selector == {"nvidia.com/gpu.product": "NVIDIA-L40S"}
    assert pool.tolerations == (GPU_TOLERATION,)
    assert pool.engine == {}


@pytest.mark.parametrize("spelling", ["NVIDIA L40S", "nvidia-l40s", "L40S"])
def test_an_explicit_pool_finds_its_type_by_any_spelling(spelling: str) -> None:
    [pool] = make_plan(gpuPools=[{"name": "big", "product": spelling, "gpusPerReplica": 2}]).pools

    assert (pool.name, pool.deployment, pool.product, pool.memory_mib) == (
        "big",
        "chat-big",
        L40S.product,
        46068,
    )
    assert (pool.gpu_resource, pool.gpus_per_replica) == ("nvidia.com/gpu", 2)
    assert pool.node_selector == L40S.selector


def test_a_product_no_node_has_is_still_selected_by_its_usual_label() -> None:
    [pool] = make_plan(gpuPools=[{"name": "a", "product": "nvidia rtx 9000"}]).pools

    assert (pool.product, pool.memory_mib) == ("NVIDIA-RTX-9000", None)
    assert pool.node_selector == {"nvidia.com/gpu.product": "NVIDIA-RTX-9000"}
    assert pool.gpu_resource == "nvidia.com/gpu"


def test_a_pool_without_a_product_takes_any_gpu() -> None:
    [pool] = make_plan(gpuPools=[{"name": "any", "nodeSelector": {"zone": "a"}}]).pools

    assert (pool.product, pool.node_selector) == (None, {"zone": "a"})
    assert (pool.gpu_resource, pool.gpus_per_replica) == ("nvidia.com/gpu", 1)


@pytest.mark.parametrize(
    ("pools", "expected"), [([], ["cpu"]), ([{"name": "east"}, {"name": "west"}], ["east", "west"])]
)
def test_on_cpus_no_pool_asks_for_a_gpu(pools: list[dict[str, Any]], expected: list[str]) -> None:
    planned = make_plan(device="cpu", gpuPools=pools)

    assert names(planned) == expected
    for pool in planned.pools:
        assert (pool.gpu_resource, pool.gpus_per_replica, pool.product) == (None, 0, None)
        assert (dict(pool.node_selector), pool.tolerations) == ({}, ())


def test_node_selectors_merge_and_the_gpus_own_wins() -> None:
    [pool] = make_plan(
        podTemplate={"nodeSelector": {"zone": "a", "disk": "ssd"}},
        gpuPools=[{"name": "a", "product": "L40S", "nodeSelector": {"zone": "b"}}],
    ).pools

    assert pool.node_selector == {"zone": "b", "disk": "ssd"} | dict(L40S.selector)


def test_tolerations_are_the_templates_the_pools_and_once_the_gpus() -> None:
    spot = {"key": "spot", "operator": "Exists"}
    [first, second] = make_plan(
        podTemplate={"tolerations": [spot]},
        gpuPools=[{"name": "a", "tolerations": [{"key": "team", "value": "x"}]}, {"name": "b"}],
    ).pools

    assert first.tolerations == (spot, {"key": "team", "value": "x"}, GPU_TOLERATION)
    assert second.tolerations == (spot, GPU_TOLERATION)
    [only] = make_plan(gpuPools=[{"name": "a", "tolerations": [GPU_TOLERATION]}]).pools
    assert only.tolerations == (GPU_TOLERATION,)


def test_engine_settings_merge_with_the_pools_over_the_common_ones() -> None:
    first, second = make_plan(
        engine={"maxNumSeqs": 8, "maxNumLogits": 512},
        gpuPools=[{"name": "a", "engine": {"maxNumSeqs": 2}}, {"name": "b"}],
    ).pools

    assert first.engine == {"max_num_seqs": 2, "max_num_logits": 512}
    assert second.engine == {"max_num_seqs": 8, "max_num_logits": 512}


@pytest.mark.parametrize(
    ("spec", "limit"),
    [
        pytest.param({}, "11517MiB", id="discovered"),
        pytest.param({"gpuPools": [{"name": "a", "product": "l40s-shared"}]}, "11517MiB", id="explicit"),
        pytest.param({"engine": {"gpuMemoryLimit": "4GiB"}}, "4GiB", id="user's own"),
        pytest.param(
            {"gpuPools": [{"name": "a", "product": "l40s-shared", "engine": {"gpuMemoryLimit": "2GiB"}}]},
            "2GiB",
            id="pool's own",
        ),
    ],
)
def test_on_a_shared_gpu_the_engine_keeps_to_its_share_unless_told_otherwise(
    spec: dict[str, Any], limit: str
) -> None:
    [pool] = make_plan({"gpu_types": (SHARED,)}, **spec).pools

    assert pool.engine["gpu_memory_limit"] == limit


def test_a_pools_resources_replace_the_templates() -> None:
    first, second = make_plan(
        podTemplate={"resources": {"limits": {"memory": "8Gi"}}},
        gpuPools=[{"name": "a", "resources": {"requests": {"cpu": "2"}}}, {"name": "b"}],
    ).pools

    assert first.resources == {"requests": {"cpu": "2"}}
    assert second.resources == {"limits": {"memory": "8Gi"}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, [1, 1]),
        ({"replicas": 0}, [0, 0]),
        ({"replicas": 1}, [1, 0]),
        ({"replicas": 5}, [3, 2]),
        (
            {"replicas": 5, "gpuPools": [{"name": "a", "replicas": 1}, {"name": "b"}, {"name": "c"}]},
            [1, 2, 2],
        ),
        ({"gpuPools": [{"name": "a", "replicas": 3}, {"name": "b"}]}, [3, 1]),
        ({"replicas": 1, "gpuPools": [{"name": "a", "replicas": 3}, {"name": "b"}]}, [3, 0]),
    ],
)
def test_replicas_are_divided_over_the_pools_without_a_number_of_their_own(
    spec: dict[str, Any], expected: list[int]
) -> None:
    assert replicas(make_plan(**spec)) == expected


@given(st.integers(0, 10_000), st.integers(1, 16))
def test_division_is_complete_fair_and_favours_the_first(total: int, pools: int) -> None:
    shares = divide(total, pools)

    assert (len(shares), sum(shares)) == (pools, total)
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


def test_dividing_over_no_pool_gives_nothing() -> None:
    assert divide(3, 0) == []


@given(st.lists(st.none() | st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 40))
def test_pools_with_their_own_number_stay_outside_the_division(own: list[int | None], total: int) -> None:
    pools = [{"name": f"p{i}"} | ({} if n is None else {"replicas": n}) for i, n in enumerate(own)]

    given_replicas = replicas(make_plan(replicas=total, gpuPools=pools))

    fixed = sum(n for n in own if n is not None)
    assert [n for n, wanted in zip(given_replicas, own, strict=True) if wanted is not None] == [
        n for n in own if n is not None
    ]
    if None in own and total >= fixed:
        assert sum(n or 0 for n in given_replicas) == total


def test_an_autoscaled_resource_leaves_every_number_to_the_autoscaler() -> None:
    planned = make_plan({"integrations": frozenset({Integration.SCALED_OBJECT})}, autoscaling=AUTOSCALING)

    assert [(pool.replicas, pool.initial_replicas) for pool in planned.pools] == [(None, 2), (None, 2)]


def test_only_the_deployment_that_a_users_autoscaler_targets_is_left_alone() -> None:
    planned = make_plan({"autoscaled": frozenset({"chat-l40s", "other"})}, replicas=4)

    assert [(p.name, p.replicas, p.initial_replicas) for p in planned.pools] == [
        ("l4", 2, 1),
        ("l40s", None, 2),
    ]


INTEGRATIONS = {
    Integration.SCALED_OBJECT: {"autoscaling": AUTOSCALING},
    Integration.POD_MONITOR: {"monitoring": {"podMonitor": True}},
    Integration.INFERENCE_POOL: {"networking": {"inferencePool": {"endpointPicker": {"name": "epp"}}}},
}


@pytest.mark.parametrize(("kind", "spec"), INTEGRATIONS.items(), ids=INTEGRATIONS)
def test_an_integration_is_made_where_its_definition_exists_and_missed_elsewhere(
    kind: Integration, spec: dict[str, Any]
) -> None:
    present = make_plan({"integrations": frozenset(Integration)}, **spec)
    absent = make_plan({"integrations": frozenset(set(Integration) - {kind})}, **spec)

    assert (present.integrations, present.missing_kinds) == (frozenset({kind}), ())
    assert (absent.integrations, absent.missing_kinds) == (frozenset(), (kind,))


def test_what_nobody_asked_for_is_neither_made_nor_missed() -> None:
    planned = make_plan({"integrations": frozenset(Integration)})

    assert (planned.integrations, planned.missing_kinds) == (frozenset(), ())


@given(st.text("abc-", min_size=1, max_size=70), st.text("abc-", min_size=1, max_size=70))
def test_a_childs_name_fits_and_differs_where_its_parts_differ(first: str, second: str) -> None:
    names = [child_name(part, "l40s") for part in (first, second)]

    assert all(len(name) <= 63 for name in names)
    assert (names[0] == names[1]) is (first == second)
