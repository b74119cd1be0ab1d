from __future__ import annotations

import json
from typing import Any

import pytest
from dllm_operator.api.environment import RESERVED
from dllm_operator.cluster.observe import Manifest
from dllm_operator.render.pod import EXIT_SECONDS
from dllm_server.settings import TuningFile

from tests.operator.objects import (
    DEFAULTS,
    make_gpu,
    make_observed,
    make_resource,
    make_spec,
    only,
    render_resource,
)

OBSERVED = make_observed(gpu_types=(make_gpu("NVIDIA-L40S", memory_mib=46068),))
OWN_ENV = {"name": "DLLM_LOG_LEVEL", "value": "debug"}


def make_children(**spec: Any) -> tuple[Manifest, ...]:
    return render_resource(make_resource(**spec), OBSERVED)


def make_deployment(**spec: Any) -> Manifest:
    return only(make_children(**spec), "Deployment")


def make_pod(**spec: Any) -> Manifest:
    return make_deployment(**spec)["spec"]["template"]["spec"]


def make_container(**spec: Any) -> Manifest:
    [container] = make_pod(**spec)["containers"]
    return container


def environment(**spec: Any) -> dict[str, str | None]:
    return {variable["name"]: variable.get("value") for variable in make_container(**spec)["env"]}


def volumes(**spec: Any) -> dict[str, Manifest]:
    return {volume.pop("name"): volume for volume in make_pod(**spec)["volumes"]}


def test_a_pool_is_a_deployment_whose_selector_matches_its_pods() -> None:
    deployment = make_deployment(replicas=2)

    assert deployment["metadata"]["name"] == "chat-l40s"
    assert deployment["spec"]["replicas"] == 2
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels == {
        "app.kubernetes.io/name": "dllm-serve",
        "app.kubernetes.io/instance": "chat",
        "app.kubernetes.io/managed-by": "dllm-operator",
        "serving.dllm.dev/pool": "l40s",
        "llm-d.ai/engine-type": "vllm",
    }


def test_a_pool_scaled_to_zero_says_so() -> None:
    assert make_deployment(replicas=0)["spec"]["replicas"] == 0


def test_two_pools_select_different_pods() -> None:
    observed = make_observed(gpu_types=(make_gpu("NVIDIA-L4"), make_gpu("NVIDIA-L40S")))
    children = render_resource(make_resource(), observed)

    selectors = [
        child["spec"]["selector"]["matchLabels"] for child in children if child["kind"] == "Deployment"
    ]

    assert [selector["serving.dllm.dev/pool"] for selector in selectors] == ["l4", "l40s"]


def test_a_pod_lands_on_its_gpu_and_leaves_a_silent_node_after_a_minute() -> None:
    pod = make_pod()

    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L40S"}
    assert pod["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    tolerated = {toleration["key"]: toleration.get("tolerationSeconds") for toleration in pod["tolerations"]}
    assert tolerated == {
        "nvidia.com/gpu": None,
        "node.kubernetes.io/not-ready": 60,
        "node.kubernetes.io/unreachable": 60,
    }
    [spread] = pod["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"]["matchLabels"]["serving.dllm.dev/pool"] == "l40s"


def test_a_pod_meets_the_restricted_profile_and_has_no_token() -> None:
    pod, container = make_pod(), make_container()

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert (pod["automountServiceAccountToken"], pod["serviceAccountName"]) == (False, "chat-dllm")
    assert pod["enableServiceLinks"] is False


def test_the_root_filesystem_is_writable_where_the_resource_says_so() -> None:
    container = make_container(podTemplate={"readOnlyRootFilesystem": False})

    assert container["securityContext"]["readOnlyRootFilesystem"] is False


def test_probes_wait_for_the_model_and_never_kill_a_loading_pod() -> None:
    container = make_container(podTemplate={"startupTimeoutSeconds": 901})

    startup, readiness, liveness = (
        container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")
    )
    assert readiness["httpGet"] == {"path": "/ready", "port": "http"}
    assert startup["httpGet"] == liveness["httpGet"] == {"path": "/health", "port": "http"}
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 901
    deployment = make_deployment(podTemplate={"startupTimeoutSeconds": 901})
    assert deployment["spec"]["progressDeadlineSeconds"] > 901


@pytest.mark.parametrize("timeout", [1, 600, 86400])
def test_a_pod_has_time_to_leave_the_endpoints_and_to_finish_every_request(timeout: int) -> None:
    networking = {"requestTimeoutSeconds": timeout}
    pod, told = make_pod(networking=networking), environment(networking=networking)

    sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert sleep > 0
    assert told["DLLM_REQUEST_TIMEOUT_SECONDS"] == told["DLLM_SHUTDOWN_GRACE_SECONDS"] == str(timeout)
    drain = sleep + int(told["DLLM_SHUTDOWN_DELAY_SECONDS"] or 0) + timeout
    assert pod["terminationGracePeriodSeconds"] >= drain + EXIT_SECONDS


def test_a_rollout_adds_a_pod_before_it_takes_one_unless_told_otherwise() -> None:
    def strategy(**spec: Any) -> Manifest:
        return make_deployment(**spec)["spec"]["strategy"]["rollingUpdate"]

    assert strategy() == {"maxSurge": 1, "maxUnavailable": 0}
    in_place = {"maxSurge": 0, "maxUnavailable": 1}
    assert strategy(podTemplate={"rollingUpdate": in_place}) == in_place


def test_the_container_serves_with_the_operators_image_unless_the_resource_names_one() -> None:
    container = make_container()

    assert (container["name"], container["args"], container["image"]) == ("engine", ["serve"], DEFAULTS.image)
    assert (container["imagePullPolicy"], container["terminationMessagePolicy"]) == (
        "IfNotPresent",
        "File",
    )
    own = make_container(image="example.local/own:1", podTemplate={"imagePullPolicy": "Always"})
    assert (own["image"], own["imagePullPolicy"]) == ("example.local/own:1", "Always")


def test_the_environment_tells_the_server_what_the_resource_says_in_a_fixed_order() -> None:
    told = environment(
        model={"source": "org/name", "revision": "v1", "servedName": "chat"},
        networking={"port": 9000},
        auth={"apiKeysSecret": {"name": "keys"}},
        engine={"maxNumSeqs": 8, "confidence": "margin", "unmaskingValue": 1.0, "kvPoolBytes": "2GiB"},
    )

    assert told == {
        "DLLM_MODEL": "org/name",
        "DLLM_DEVICE": "cuda",
        "DLLM_PORT": "9000",
        "DLLM_METRICS_PORT": "9464",
        "DLLM_TUNING_FILE": "/etc/dllm/tuning/tuning.json",
        "DLLM_REQUEST_TIMEOUT_SECONDS": "600",
        "DLLM_SHUTDOWN_DELAY_SECONDS": "5",
        "DLLM_SHUTDOWN_GRACE_SECONDS": "600",
        "HF_HOME": "/var/cache/dllm/huggingface",
        "TRITON_CACHE_DIR": "/var/cache/dllm/triton",
        "TORCHINDUCTOR_CACHE_DIR": "/var/cache/dllm/inductor",
        "DLLM_REVISION": "v1",
        "DLLM_SERVED_MODEL_NAME": "chat",
        "DLLM_API_KEYS_FILE": "/etc/dllm/auth/keys",
        "DLLM_CONFIDENCE": "margin",
        "DLLM_KV_POOL_BYTES": "2GiB",
        "DLLM_MAX_NUM_SEQS": "8",
        "DLLM_UNMASKING_VALUE": "1",
    }
    names = [name for name in told if name.startswith("DLLM_")]
    assert names[:2] == ["DLLM_MODEL", "DLLM_DEVICE"]
    assert names[-4:] == sorted(names[-4:])


def test_a_users_variable_comes_last_so_that_no_setting_can_refer_to_it() -> None:
    template = {"env": [OWN_ENV]}
    variables = make_container(
        podTemplate=template, model={"source": "org/name", "revision": "$(DLLM_LOG_LEVEL)$"}
    )["env"]

    assert variables[-1] == OWN_ENV
    assert {"name": "DLLM_REVISION", "value": "$$(DLLM_LOG_LEVEL)$$"} in variables
    for setting in variables:
        assert set(setting["name"]) & set("abcdefghijklmnopqrstuvwxyz") == set()


def test_a_collector_of_traces_can_be_named() -> None:
    pod_name = {"fieldRef": {"fieldPath": "metadata.name"}}
    env = [
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector.observability:4318"},
        {"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": {"secretKeyRef": {"name": "otlp", "key": "h"}}},
        {"name": "POD", "valueFrom": pod_name},
        {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "k8s.pod.name=$(POD)"},
    ]

    assert make_resource(podTemplate={"env": env}).problems == ()
    assert [one for one in make_container(podTemplate={"env": env})["env"] if one in env] == env


def test_every_variable_that_the_operator_sets_is_its_own() -> None:
    spec = {
        "model": {"source": "org/name", "revision": "v1", "servedName": "a", "tokenSecret": {"name": "hub"}},
        "auth": {"apiKeysSecret": {"name": "api"}},
        "engine": {"maxNumSeqs": 4},
    }

    assert {variable["name"] for variable in make_container(**spec)["env"]} <= set(RESERVED)


def test_device_claims_are_the_pods_and_the_container_names_them() -> None:
    claim = {"name": "gpu", "resourceClaimTemplateName": "one-gpu"}
    resources = {"limits": {"memory": "1Gi"}, "claims": [{"name": "gpu", "request": "big"}]}

    pod = make_pod(device="cpu", podTemplate={"resourceClaims": [claim], "resources": resources})

    assert pod["resourceClaims"] == [claim]
    assert pod["containers"][0]["resources"] == resources


def test_a_claim_that_the_pods_do_not_have_is_no_valid_spec() -> None:
    resources = {"claims": [{"name": "gpu"}]}
    pools = [{"name": "a", "resources": resources}]

    resource = make_resource(podTemplate={"resources": resources}, gpuPools=pools)

    assert [problem.split(":")[0] for problem in resource.problems] == [
        "spec.podTemplate.resources.claims[gpu]",
        "spec.gpuPools[a].resources.claims[gpu]",
    ]


def test_secrets_are_referred_to_and_never_copied() -> None:
    spec = {
        "model": {"source": "org/name", "tokenSecret": {"name": "hub", "key": "t"}},
        "auth": {"apiKeysSecret": {"name": "api"}},
    }

    [token] = [variable for variable in make_container(**spec)["env"] if variable["name"] == "HF_TOKEN"]
    assert token == {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "t"}}}
    assert volumes(**spec)["auth"]["secret"] == {
        "secretName": "api",
        "items": [{"key": "keys", "path": "keys"}],
    }


@pytest.mark.parametrize(
    ("model", "argument", "claims"),
    [
        pytest.param({"source": "embedded"}, "embedded", {}, id="embedded"),
        pytest.param({"source": "org/name"}, "org/name", {}, id="hub"),
        pytest.param({"source": "pvc://models/a/b"}, "/models/a/b", {"model": "models"}, id="claim"),
        pytest.param({"source": "pvc://models"}, "/models", {"model": "models"}, id="root of a claim"),
        pytest.param(
            {"source": "a/b", "cache": {"size": "50Gi"}}, "a/b", {"cache": "chat-cache"}, id="cache made"
        ),
        pytest.param(
            {"source": "a/b", "cache": {"claimName": "own"}}, "a/b", {"cache": "own"}, id="own cache"
        ),
    ],
)
def test_model_and_cache_come_from_the_claims_that_the_resource_names(
    model: dict[str, Any], argument: str, claims: dict[str, str]
) -> None:
    mounted = {
        name: volume["persistentVolumeClaim"]["claimName"]
        for name, volume in volumes(model=model).items()
        if "persistentVolumeClaim" in volume
    }

    assert environment(model=model)["DLLM_MODEL"] == argument
    assert mounted == claims
    if "model" in claims:
        [mount] = [m for m in make_container(model=model)["volumeMounts"] if m["name"] == "model"]
        assert mount == {"name": "model", "mountPath": "/models", "readOnly": True}


def test_every_mount_has_its_volume_and_every_volume_a_mount() -> None:
    spec = {"model": {"source": "pvc://models/a"}, "auth": {"apiKeysSecret": {"name": "api"}}}

    mounts = [mount["name"] for mount in make_container(**spec)["volumeMounts"]]

    assert sorted(mounts) == sorted(volumes(**spec))


def test_the_tuning_file_starts_empty_and_is_the_one_the_pod_mounts() -> None:
    children = make_children()
    config = only(children, "ConfigMap")

    document = TuningFile.model_validate(json.loads(config["data"]["tuning.json"]))
    assert config["metadata"]["name"] == "chat-l40s-tuning"
    assert document.model_dump(exclude_none=True, exclude={"checksum"}) == {"generation": 0}
    assert document.checksum is not None
    assert volumes()["tuning"] == {"configMap": {"name": config["metadata"]["name"]}}


def test_what_the_pod_template_says_reaches_the_pod() -> None:
    template = {
        "annotations": {"team": "a"},
        "labels": {"tier": "gold"},
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "runtimeClassName": "nvidia",
        "imagePullSecrets": [{"name": "registry"}],
        "resources": {"limits": {"memory": "8Gi"}, "requests": {"cpu": 2}},
    }

    pod, metadata = (
        make_pod(podTemplate=template),
        make_deployment(podTemplate=template)["spec"]["template"]["metadata"],
    )

    assert (metadata["annotations"], metadata["labels"]["tier"]) == ({"team": "a"}, "gold")
    for field in ("affinity", "priorityClassName", "runtimeClassName", "imagePullSecrets"):
        assert pod[field] == template[field]
    assert pod["containers"][0]["resources"] == {
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "1"},
        "requests": {"cpu": "2"},
    }


def test_rendering_twice_leaves_the_spec_and_the_plan_as_they_were() -> None:
    spec = {"podTemplate": {"resources": {"limits": {"memory": "8Gi"}}}}

    assert make_children(**spec) == make_children(**spec)
    assert make_spec(**spec) == make_resource(**spec).spec
