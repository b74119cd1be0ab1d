from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from dllm_operator.api.v1alpha1 import (
    Condition,
    ConditionStatus,
    ConditionType,
    DLLMDeploymentSpec,
    DLLMDeploymentStatus,
    MetricName,
    PoolStatus,
    TuningMode,
)
from dllm_server.settings import Device
from pydantic import ValidationError


def parse(**fields: Any) -> DLLMDeploymentSpec:
    return DLLMDeploymentSpec.model_validate({"model": {"source": "embedded"}} | fields)


def test_the_smallest_spec_has_the_documented_defaults() -> None:
    spec = parse()

    assert (spec.device, spec.replicas, spec.image, spec.gpu_pools) == (Device.CUDA, None, None, ())
    assert (spec.tuning.mode, spec.tuning.target_memory_utilization) == (TuningMode.OFF, 0.9)
    assert (spec.networking.port, spec.networking.request_timeout_seconds) == (8000, 600)
    assert (spec.networking.network_policy.enabled, spec.networking.network_policy.peers) == (True, ())
    assert (spec.autoscaling, spec.auth.api_keys_secret, spec.monitoring.pod_monitor) == (None, None, False)
    assert spec.pod_template.read_only_root_filesystem
    assert spec.pod_template.startup_timeout_seconds == 1800


def test_references_name_their_usual_keys() -> None:
    spec = parse(
        model={"source": "a/b", "tokenSecret": {"name": "hub"}},
        auth={"apiKeysSecret": {"name": "api"}},
        networking={"inferencePool": {"endpointPicker": {"name": "epp"}}},
    )

    assert spec.model.token_secret is not None
    assert spec.model.token_secret.key == "token"
    assert spec.auth.api_keys_secret is not None
    assert spec.auth.api_keys_secret.key == "keys"
    assert spec.networking.inference_pool is not None
    assert spec.networking.inference_pool.endpoint_picker.port == 9002


def test_autoscaling_waits_for_waiting_requests_with_one_pod_at_least() -> None:
    spec = parse(
        autoscaling={"maxReplicas": 4, "metric": {"target": 8}, "prometheusAddress": "http://p:9090"}
    )

    assert spec.autoscaling is not None
    assert (spec.autoscaling.min_replicas, spec.autoscaling.metric.name) == (1, MetricName.WAITING)


def test_kubernetes_parts_are_written_back_as_they_were_read() -> None:
    toleration = {"key": "gpu", "operator": "Exists", "tolerationSeconds": 5}
    variable = {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    peers = [
        {"podSelector": {}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
        {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["a"]}]}},
    ]
    field = "DuringSchedulingIgnoredDuringExecution"
    term = {"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": "kubernetes.io/hostname"}
    zones = {"matchExpressions": [{"key": "zone", "operator": "Gt", "values": ["1"]}]}
    affinity = {
        "nodeAffinity": {f"required{field}": {"nodeSelectorTerms": [zones]}},
        "podAntiAffinity": {f"preferred{field}": [{"weight": 1, "podAffinityTerm": term}]},
    }
    spec = parse(
        podTemplate={
            "tolerations": [toleration],
            "env": [variable],
            "affinity": affinity,
            "resources": {"limits": {"cpu": 2}, "requests": {"memory": "1Gi"}},
        },
        networking={"networkPolicy": {"from": peers}},
    )

    assert spec.pod_template.tolerations[0].manifest() == toleration
    assert spec.pod_template.env[0].manifest() == variable
    assert spec.pod_template.affinity is not None
    assert spec.pod_template.affinity.manifest() == affinity
    assert spec.pod_template.resources is not None
    assert spec.pod_template.resources.manifest() == {"limits": {"cpu": "2"}, "requests": {"memory": "1Gi"}}
    assert [peer.manifest() for peer in spec.networking.network_policy.peers] == peers


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"gpuPool": []}, "gpuPool"),
        ({"gpuPools": [{"name": "A"}]}, "gpuPools.0.name"),
        ({"tuning": {"intervalSeconds": 1}}, "tuning.intervalSeconds"),
        ({"replicas": -1}, "replicas"),
    ],
)
def test_an_invalid_field_is_named_as_the_manifest_spells_it(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as error:
        parse(**fields)

    assert [".".join(map(str, detail["loc"])) for detail in error.value.errors()] == [where]


def test_a_spec_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parse().replicas = 3  # type: ignore[misc]


def test_a_status_is_written_in_camel_case_with_times_in_seconds_and_utc() -> None:
    since = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=1)))
    ready = Condition(
        type=ConditionType.READY, status=ConditionStatus.TRUE, reason="Serving", last_transition_time=since
    )
    status = DLLMDeploymentStatus(
        observed_generation=3, conditions=(ready,), pools=(PoolStatus(name="a", memory_mib=46068),)
    )

    assert status.manifest() == {
        "observedGeneration": 3,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Serving",
                "message": "",
                "lastTransitionTime": "2026-01-02T02:04:05Z",
            }
        ],
        "replicas": 0,
        "readyReplicas": 0,
        "gpus": 0,
        "pools": [{"name": "a", "memoryMib": 46068, "replicas": 0, "readyReplicas": 0, "gpus": 0}],
    }
    read = DLLMDeploymentStatus.model_validate(status.manifest())
    assert read.conditions[0].last_transition_time == since.astimezone(UTC).replace(microsecond=0)


def test_a_status_that_a_newer_operator_wrote_can_be_read() -> None:
    assert DLLMDeploymentStatus.model_validate({"replicas": 2, "invented": 1}).replicas == 2
