from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from dllm_operator.cluster.observe import Integration, Manifest

from tests.operator.objects import UID, by_kind, make_gpu, make_observed, make_resource, only, render_resource

AUTOSCALING = {
    "minReplicas": 2,
    "maxReplicas": 8,
    "metric": {"target": 4},
    "prometheusAddress": "http://p:9090",
}
OBSERVED = make_observed(
    gpu_types=(make_gpu("NVIDIA-L4"), make_gpu("NVIDIA-L40S")), integrations=frozenset(Integration)
)
PODS = {"app.kubernetes.io/instance": "chat", "app.kubernetes.io/managed-by": "dllm-operator"}


def make_children(**spec: Any) -> tuple[Manifest, ...]:
    return render_resource(make_resource(**spec), OBSERVED)


def test_a_small_resource_has_the_shared_children_and_two_a_pool() -> None:
    assert Counter(child["kind"] for child in make_children()) == {
        "ServiceAccount": 1,
        "Service": 1,
        "PodDisruptionBudget": 1,
        "NetworkPolicy": 1,
        "ConfigMap": 2,
        "Deployment": 2,
    }


def test_what_pods_refer_to_comes_before_the_pods() -> None:
    kinds = [child["kind"] for child in make_children(model={"source": "a/b", "cache": {"size": "1Gi"}})]

    first = kinds.index("Deployment")
    assert {"ServiceAccount", "ConfigMap", "PersistentVolumeClaim", "NetworkPolicy"} <= set(kinds[:first])


def test_every_child_is_owned_by_the_resource() -> None:
    for child in make_children(autoscaling=AUTOSCALING, monitoring={"podMonitor": True}):
        [owner] = child["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
            "DLLMDeployment",
            "chat",
            UID,
            True,
        )


def test_only_the_children_of_a_pool_name_their_pool() -> None:
    pools = {
        child["kind"]: child["metadata"]["labels"].get("serving.dllm.dev/pool") is not None
        for child in make_children(autoscaling=AUTOSCALING)
    }

    assert {kind for kind, names_pool in pools.items() if names_pool} == {
        "Deployment",
        "ConfigMap",
        "ScaledObject",
    }


def test_the_service_sends_its_port_to_the_pods_of_all_pools() -> None:
    service = only(make_children(networking={"port": 9000}), "Service")

    assert service["spec"]["selector"] == PODS
    [port] = service["spec"]["ports"]
    assert (port["name"], port["port"], port["targetPort"]) == ("http", 9000, "http")


def test_the_service_account_has_no_token() -> None:
    assert only(make_children(), "ServiceAccount")["automountServiceAccountToken"] is False


def test_the_disruption_budget_lets_one_pod_go_at_a_time() -> None:
    budget = only(make_children(), "PodDisruptionBudget")["spec"]

    assert (budget["maxUnavailable"], budget["selector"]) == (1, {"matchLabels": PODS})


WEB = {"podSelector": {"matchLabels": {"app": "web"}}}
PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
EVERY_POD: dict[str, Any] = {"namespaceSelector": {}}
DOOR = {
    "podSelector": {
        "matchLabels": {"app.kubernetes.io/name": "dllm-front-door", "app.kubernetes.io/instance": "chat"}
    }
}
OPERATOR = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "dllm-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "dllm-operator"}},
}


def opened(policy: dict[str, Any], **spec: Any) -> list[Any]:
    """The peers of the API's port and of the metrics' port; None is everybody."""
    networking = {"port": 9000, "networkPolicy": policy} | spec.pop("networking", {})
    body = only(make_children(networking=networking, **spec), "NetworkPolicy")["spec"]
    assert (body["podSelector"], body["policyTypes"]) == ({"matchLabels": PODS}, ["Ingress"])
    assert [rule["ports"] for rule in body["ingress"]] == [
        [{"port": port, "protocol": "TCP"}] for port in (9000, 9464)
    ]
    return [rule.get("from") for rule in body["ingress"]]


def test_a_network_policy_without_peers_opens_two_ports_to_everybody() -> None:
    assert opened({}) == [None, None]


def test_those_named_may_call_and_read_and_so_may_the_operators_pods() -> None:
    assert opened({"from": [WEB]}) == [[WEB, DOOR, OPERATOR], [WEB, OPERATOR]]


@pytest.mark.parametrize(
    "asked",
    [
        {"monitoring": {"podMonitor": True}},
        {"autoscaling": AUTOSCALING},
        {"networking": {"inferencePool": {"endpointPicker": {"name": "epp"}}}},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_what_the_spec_has_somebody_read_is_shut_out_by_no_peer(asked: dict[str, Any]) -> None:
    assert opened({"from": [WEB]}, **asked) == [[WEB, DOOR, OPERATOR], [WEB, EVERY_POD, OPERATOR]]


def test_readers_of_the_metrics_can_be_named() -> None:
    named = {"from": [WEB], "metricsFrom": [PROMETHEUS]}

    assert opened(named, monitoring={"podMonitor": True}) == [[WEB, DOOR, OPERATOR], [PROMETHEUS, OPERATOR]]
    assert opened({"metricsFrom": [PROMETHEUS]}) == [None, [PROMETHEUS, OPERATOR]]


def test_the_operator_alone_reads_metrics_that_are_open_to_nobody() -> None:
    assert opened({"metricsFrom": []}, monitoring={"podMonitor": True}) == [None, [OPERATOR]]


@pytest.mark.parametrize(("port", "metrics"), [(8000, 9464), (9464, 9465), (9465, 9464)])
def test_metrics_have_a_port_that_is_never_the_apis(port: int, metrics: int) -> None:
    children = make_children(networking={"port": port})

    [container] = by_kind(children, "Deployment")[0]["spec"]["template"]["spec"]["containers"]
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == {
        "http": port,
        "metrics": metrics,
    }
    assert {"name": "DLLM_METRICS_PORT", "value": str(metrics)} in container["env"]
    rules = only(children, "NetworkPolicy")["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in rules] == [port, metrics]


def test_without_a_network_policy_none_is_made() -> None:
    assert by_kind(make_children(networking={"networkPolicy": {"enabled": False}}), "NetworkPolicy") == []


@pytest.mark.parametrize(
    ("cache", "spec"),
    [
        (
            {"size": "50Gi"},
            {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "50Gi"}}},
        ),
        (
            {"size": "1Ti", "accessMode": "ReadWriteMany", "storageClassName": "nfs"},
            {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Ti"}},
                "storageClassName": "nfs",
            },
        ),
    ],
    ids=["least", "most"],
)
def test_a_cache_with_a_size_gets_a_claim(cache: dict[str, Any], spec: dict[str, Any]) -> None:
    claim = only(make_children(model={"source": "a/b", "cache": cache}), "PersistentVolumeClaim")

    assert (claim["metadata"]["name"], claim["spec"]) == ("chat-cache", spec)


def test_a_claim_of_the_users_own_is_not_made() -> None:
    assert (
        by_kind(
            make_children(model={"source": "a/b", "cache": {"claimName": "own"}}), "PersistentVolumeClaim"
        )
        == []
    )


def test_an_autoscaled_deployment_says_nothing_about_replicas() -> None:
    for deployment in by_kind(make_children(autoscaling=AUTOSCALING), "Deployment"):
        assert "replicas" not in deployment["spec"]


@pytest.mark.parametrize(
    ("metric", "series", "threshold"),
    [
        ({"target": 4}, "vllm:num_requests_waiting", "4"),
        ({"name": "running", "target": 2.5}, "vllm:num_requests_running", "2.5"),
        ({"name": "kvCacheUsage", "target": 0.8}, "vllm:kv_cache_usage_perc", "0.8"),
    ],
)
def test_a_scaled_object_scales_its_pools_deployment_on_its_own_pods(
    metric: dict[str, Any], series: str, threshold: str
) -> None:
    first, second = by_kind(make_children(autoscaling=AUTOSCALING | {"metric": metric}), "ScaledObject")

    assert first["apiVersion"] == "keda.sh/v1alpha1"
    assert first["metadata"]["name"] == first["spec"]["scaleTargetRef"]["name"] == "chat-l4"
    assert (first["spec"]["minReplicaCount"], first["spec"]["maxReplicaCount"]) == (2, 8)
    [trigger] = first["spec"]["triggers"]
    assert (trigger["type"], trigger["metadata"]["threshold"]) == ("prometheus", threshold)
    assert trigger["metadata"]["serverAddress"] == "http://p:9090"
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert trigger["metadata"]["query"] == (
        f'sum({series}{{namespace="team-a",app_kubernetes_io_instance="chat",'
        'app_kubernetes_io_managed_by="dllm-operator",serving_dllm_dev_pool="l4"})'
    )
    assert second["metadata"]["name"] == "chat-l40s"


def selected(query: str, labels: dict[str, str]) -> bool:
    """Whether a query's equalities hold for a series with the labels of its pod, as Prometheus names them."""
    series = {"namespace": "team-a"} | {re.sub(r"\W", "_", name): value for name, value in labels.items()}
    wanted = dict(re.findall(r'(\w+)="([^"]*)"', query))
    return len(wanted) == 4 and wanted.items() <= series.items()


def test_a_query_sees_the_pods_of_its_pool_and_of_no_other() -> None:
    pools = [{"name": name} for name in ("l40s", "l40s-shared", "l4")]
    children = make_children(autoscaling=AUTOSCALING, gpuPools=pools, monitoring={"podMonitor": True})
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in by_kind(children, "Deployment")
    }

    seen = {
        scaled["metadata"]["name"]: [
            name
            for name, labels in pods.items()
            if selected(scaled["spec"]["triggers"][0]["metadata"]["query"], labels)
        ]
        for scaled in by_kind(children, "ScaledObject")
    }

    assert seen == {name: [name] for name in ("chat-l40s", "chat-l40s-shared", "chat-l4")}
    kept = only(children, "PodMonitor")["spec"]["podTargetLabels"]
    assert set(kept) == {
        "app.kubernetes.io/instance",
        "app.kubernetes.io/managed-by",
        "serving.dllm.dev/pool",
    }


def test_a_large_target_keeps_all_of_its_digits() -> None:
    scaled = by_kind(
        make_children(autoscaling=AUTOSCALING | {"metric": {"target": 123456.5}}), "ScaledObject"
    )

    assert float(scaled[0]["spec"]["triggers"][0]["metadata"]["threshold"]) == 123456.5


def test_a_pod_monitor_scrapes_the_metrics_port_of_all_pods() -> None:
    monitor = only(make_children(monitoring={"podMonitor": True}), "PodMonitor")

    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["spec"]["selector"] == {"matchLabels": PODS}
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics"}]


def test_an_inference_pool_names_its_picker_and_the_serving_port() -> None:
    picker = {"name": "epp", "port": 9100}
    pool = only(
        make_children(networking={"port": 9000, "inferencePool": {"endpointPicker": picker}}), "InferencePool"
    )

    assert pool["apiVersion"] == "inference.networking.k8s.io/v1"
    assert pool["spec"]["selector"] == {"matchLabels": PODS}
    assert pool["spec"]["targetPorts"] == [{"number": 9000}]
    assert pool["spec"]["endpointPickerRef"] == {"name": "epp", "port": {"number": 9100}}


def test_an_integration_without_its_definition_is_left_out() -> None:
    children = render_resource(
        make_resource(autoscaling=AUTOSCALING, monitoring={"podMonitor": True}),
        make_observed(gpu_types=OBSERVED.gpu_types),
    )

    assert not {"ScaledObject", "PodMonitor"} & {child["kind"] for child in children}
