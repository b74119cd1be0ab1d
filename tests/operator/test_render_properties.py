from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from dllm_operator.cluster.kinds import BY_KIND
from dllm_operator.cluster.observe import Integration, Observed
from dllm_operator.cluster.resource import Resource
from dllm_operator.writing.drift import has_drifted, with_hash
from dllm_server.settings import ServeSettings
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.operator.objects import by_kind, make_body, make_gpu, make_observed, render_resource

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
AUTOSCALING = {
    "minReplicas": 0,
    "maxReplicas": 3,
    "metric": {"target": 4},
    "prometheusAddress": "http://p:9090",
}
TYPES = (
    make_gpu("NVIDIA-L4", memory_mib=23034),
    make_gpu("NVIDIA-L40S-SHARED", memory_mib=46068, shares=4),
    make_gpu("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", memory_mib=9728),
)

sizes = st.sampled_from(["1GiB", "512MiB", "2.5 GB", 1048576])
engines = st.fixed_dictionaries(
    {},
    optional={
        "maxNumBatchedTokens": st.integers(1, 2**31 - 1),
        "maxNumSeqs": st.integers(1, 4096),
        "refreshShare": st.floats(0, 1, exclude_min=True),
        "admissionWatermark": st.floats(0, 1, exclude_max=True),
        "maxModelLen": st.integers(1, 10**6),
        "dtype": st.sampled_from(["auto", "float32", "bfloat16"]),
        "gpuMemoryLimit": sizes,
        "kvPoolBytes": sizes,
        "pageSize": st.integers(1, 256),
        "kvSelection": st.sampled_from(["per_head", "shared"]),
        "unmaskingStrategy": st.sampled_from(["quota", "threshold", "factor", "entropy_bound"]),
        "unmaskingValue": st.sampled_from([1, 2, 0.5, 1e-7]),
        "confidence": st.sampled_from(["probability", "margin", "entropy", "random"]),
    },
)
models = st.one_of(
    st.fixed_dictionaries({"source": st.just("embedded")}, optional={"servedName": st.just("chat-model")}),
    st.fixed_dictionaries(
        {"source": st.just("org/Name-8B.v1")},
        optional={
            "revision": st.sampled_from(["main", "1" * 40]),
            "cache": st.sampled_from([{"size": "5Gi"}, {"claimName": "weights"}]),
            "tokenSecret": st.just({"name": "hub"}),
        },
    ),
    st.just({"source": "pvc://models/a/b"}),
)
pools = st.lists(
    st.fixed_dictionaries(
        {"name": st.from_regex(r"[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?", fullmatch=True)},
        optional={
            "product": st.sampled_from(["L4", "nvidia rtx 9000"]),
            "engine": engines,
            "replicas": st.integers(0, 9),
        },
    ),
    max_size=3,
    unique_by=lambda pool: pool["name"],
)
specs = st.fixed_dictionaries(
    {"model": models},
    optional={
        "device": st.sampled_from(["cuda", "cpu"]),
        "engine": engines,
        "gpuPools": pools,
        "replicas": st.integers(0, 100),
        "autoscaling": st.just(AUTOSCALING),
        "auth": st.just({"apiKeysSecret": {"name": "keys"}}),
        "monitoring": st.just({"podMonitor": True}),
        "networking": st.fixed_dictionaries(
            {},
            optional={
                "port": st.integers(1, 65535),
                "requestTimeoutSeconds": st.integers(1, 86400),
                "inferencePool": st.just({"endpointPicker": {"name": "epp"}}),
            },
        ),
    },
)
names = st.from_regex(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
observations = st.builds(
    make_observed,
    gpu_types=st.lists(st.sampled_from(TYPES), unique_by=lambda gpu: gpu.product).map(tuple),
    integrations=st.frozensets(st.sampled_from(Integration)),
)
resources = st.builds(lambda name, spec: Resource.parse(make_body(name=name, **spec)), names, specs)


@contextmanager
def environment_of(container: dict[str, Any]) -> Iterator[dict[str, str]]:
    """The process's own DLLM_ variables replaced by the container's."""
    told = {v["name"]: v["value"] for v in container["env"] if v["name"].startswith("DLLM_")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        yield told


@settings(max_examples=60, deadline=None)
@given(resources, observations)
def test_children_are_the_same_each_time_labelled_and_named_by_dns_labels(
    resource: Resource, observed: Observed
) -> None:
    assume(resource.spec is not None)
    children = render_resource(resource, observed)

    assert children == render_resource(resource, observed)
    identities = [(child["kind"], child["metadata"]["name"]) for child in children]
    assert len(set(identities)) == len(identities)
    for child in children:
        assert DNS_LABEL.fullmatch(child["metadata"]["name"])
        assert len(child["metadata"]["name"]) <= 63
        assert child["metadata"]["labels"]["app.kubernetes.io/instance"] == resource.name
        assert child["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "dllm-operator"
        assert child["apiVersion"] == BY_KIND[child["kind"]].api_version
        assert not has_drifted(with_hash(child), with_hash(child))


@settings(max_examples=60, deadline=None)
@given(resources, observations)
def test_the_server_understands_the_environment_of_every_pod(resource: Resource, observed: Observed) -> None:
    assume(resource.spec is not None)

    for deployment in by_kind(render_resource(resource, observed), "Deployment"):
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        with environment_of(container) as told:
            loaded = ServeSettings.load({})

        assert {name.removeprefix("DLLM_").lower() for name in told} <= set(ServeSettings.model_fields)
        assert loaded.port == container["ports"][0]["containerPort"]
        assert str(loaded.device) == told["DLLM_DEVICE"]


@settings(max_examples=40, deadline=None)
@given(resources, observations)
def test_selectors_find_the_pods_of_this_resource_and_each_pool_its_own(
    resource: Resource, observed: Observed
) -> None:
    assume(resource.spec is not None)
    children = render_resource(resource, observed)
    [service] = by_kind(children, "Service")
    deployments = by_kind(children, "Deployment")

    for deployment in deployments:
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        found = [
            other["metadata"]["name"]
            for other in deployments
            if other["spec"]["selector"]["matchLabels"].items() <= labels.items()
        ]
        assert found == [deployment["metadata"]["name"]]
