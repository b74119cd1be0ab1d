"""One accepted and one rejected object for each rule of the CRD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Fields = dict[str, Any]

EMBEDDED: Fields = {"model": {"source": "embedded"}}
HUB = "GSAI-ML/LLaDA-8B-Instruct"


@dataclass(frozen=True)
class Case:
    """``rule`` is how the message of the rule at ``path`` begins; ``error`` is what the API server must say.

    ``accepted`` and ``rejected`` are specs without the model where it does not matter, or names. With
    ``before`` they are what an existing object with that spec is changed to.
    """

    path: str
    rule: str
    accepted: Fields | str
    rejected: Fields | str
    error: str
    before: Fields | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.rule}"


def model(source: str, **fields: Any) -> Fields:
    return {"model": {"source": source, **fields}}


def autoscaling(**fields: Any) -> Fields:
    metric = {"name": "waiting", "target": 8}
    return {
        "autoscaling": {"maxReplicas": 4, "metric": metric, "prometheusAddress": "http://prom:9090"} | fields
    }


def builtin(**fields: Any) -> Fields:
    return {"autoscaling": {"provider": "Builtin", "maxReplicas": 4} | fields}


def bounds(name: str, **limits: float) -> Fields:
    return {"tuning": {"bounds": {name: limits}}}


def env(**variable: Any) -> Fields:
    return {"podTemplate": {"env": [variable]}}


NAMES = [
    Case(
        "",
        "metadata.name has more",
        accepted="a" * 40,
        rejected="a" * 41,
        error=f"metadata.name '{'a' * 41}' has 41 characters, more than 40",
    ),
    Case(
        "",
        "metadata.name is not",
        accepted="llada-8b",
        rejected="8b.llada",
        error="metadata.name '8b.llada' is not a Service's name",
    ),
]

MODELS = [
    Case(
        ".spec.model.source",
        "source is not a model",
        accepted=model(HUB),
        rejected=model("s3://bucket/llada"),
        error="source 's3://bucket/llada' is not a model: write 'embedded', a hub id 'ORG/NAME', or",
    ),
    Case(
        ".spec.model.source",
        "source leaves",
        accepted=model("pvc://models/llada/..8b"),
        rejected=model("pvc://models/../llada"),
        error="source 'pvc://models/../llada' leaves its directory with '.' or '..'",
    ),
    Case(
        ".spec.model",
        "revision is of a hub id",
        accepted=model(HUB, revision="main"),
        rejected=model("embedded", revision="main"),
        error="revision 'main' is of a hub id, which source 'embedded' is not",
    ),
    Case(
        ".spec.model",
        "cache keeps downloads",
        accepted=model(HUB, cache={"claimName": "weights"}),
        rejected=model("pvc://models/llada", cache={"size": "1Gi"}),
        error="cache keeps downloads, and source 'pvc://models/llada' is not downloaded",
    ),
    Case(
        ".spec.model",
        "tokenSecret is for the hub",
        accepted=model(HUB, tokenSecret={"name": "hub"}),
        rejected=model("embedded", tokenSecret={"name": "hub"}),
        error="tokenSecret is for the hub, and source 'embedded' is not downloaded",
    ),
    Case(
        ".spec.model.cache",
        "cache needs exactly one",
        accepted=model(HUB, cache={"size": "40Gi"}),
        rejected=model(HUB, cache={"size": "40Gi", "claimName": "weights"}),
        error="cache needs exactly one of claimName",
    ),
    Case(
        ".spec.model.cache",
        "cache needs exactly one",
        accepted=model(HUB, cache={"claimName": "weights"}),
        rejected=model(HUB, cache={}),
        error="cache needs exactly one of claimName",
    ),
    Case(
        ".spec.model.cache",
        "size is 0",
        accepted=model(HUB, cache={"size": "1"}),
        rejected=model(HUB, cache={"size": "0Gi"}),
        error="size is 0: give the cache room",
    ),
    Case(
        ".spec.model.cache",
        "storageClassName belongs",
        accepted=model(HUB, cache={"size": 1024, "storageClassName": "fast"}),
        rejected=model(HUB, cache={"claimName": "weights", "storageClassName": "fast"}),
        error="storageClassName 'fast' belongs to the claim that size makes",
    ),
    Case(
        ".spec.model.cache",
        "accessMode belongs",
        accepted=model(HUB, cache={"size": "40Gi", "accessMode": "ReadWriteMany"}),
        rejected=model(HUB, cache={"claimName": "weights", "accessMode": "ReadWriteMany"}),
        error="accessMode belongs to the claim that size makes",
    ),
]

CHANGES = [
    Case(
        ".spec.model.cache",
        "cache cannot be changed",
        before=model(HUB, cache={"size": "40Gi"}),
        accepted=model(HUB),
        rejected=model(HUB, cache={"size": "8Gi"}),
        error="cache cannot be changed",
    ),
    Case(
        ".spec.model.cache",
        "cache cannot be changed",
        before=model(HUB, cache={"size": "40Gi", "storageClassName": "fast"}),
        accepted=model(HUB, cache={"size": "0.1Ti", "storageClassName": "fast"}),
        rejected=model(HUB, cache={"size": "80Gi", "storageClassName": "slow"}),
        error="cache cannot be changed",
    ),
    Case(
        ".spec.model.cache",
        "cache cannot be changed",
        before=model(HUB, cache={"size": 1000}),
        accepted=model(HUB, cache={"size": "1Ki"}),
        rejected=model(HUB, cache={"size": "1Ki", "accessMode": "ReadWriteMany"}),
        error="cache cannot be changed",
    ),
    Case(
        ".spec.model.cache",
        "cache cannot be changed",
        before=model(HUB, cache={"claimName": "weights"}),
        accepted=model(HUB, cache={"claimName": "weights"}, revision="main"),
        rejected=model(HUB, cache={"claimName": "others"}),
        error="cache cannot be changed",
    ),
    Case(
        ".spec",
        "model.source cannot change",
        before=EMBEDDED | {"replicas": 1},
        accepted=model(HUB) | {"replicas": 0},
        rejected=model(HUB) | {"replicas": 1},
        error=f"model.source cannot change from 'embedded' to '{HUB}' while serving: scale to 0",
    ),
    Case(
        ".spec",
        "model.source cannot change",
        before=EMBEDDED | {"replicas": 0},
        accepted=model(HUB) | {"replicas": 2},
        rejected=model("no model") | {"replicas": 2},
        error="source 'no model' is not a model",
    ),
    Case(
        ".spec",
        "model.source cannot change",
        before=EMBEDDED,
        accepted=EMBEDDED | {"replicas": 3},
        rejected=model(HUB),
        error="while serving",
    ),
    Case(
        ".spec",
        "model.source cannot change",
        before=EMBEDDED | {"replicas": 0, "gpuPools": [{"name": "a", "replicas": 1}]},
        accepted=model(HUB) | {"replicas": 0, "gpuPools": [{"name": "a", "replicas": 0}]},
        rejected=model(HUB) | {"replicas": 0, "gpuPools": [{"name": "a", "replicas": 1}]},
        error="while serving",
    ),
]

SCALES = [
    Case(
        ".spec",
        "replicas and autoscaling",
        accepted={"replicas": 2},
        rejected={"replicas": 2, **autoscaling()},
        error="replicas 2 and autoscaling exclude each other",
    ),
    Case(
        ".spec",
        "autoscaling and gpuPools[].replicas",
        accepted={"gpuPools": [{"name": "a"}], **autoscaling()},
        rejected={"gpuPools": [{"name": "a"}, {"name": "b", "replicas": 1}], **autoscaling()},
        error="autoscaling and gpuPools[].replicas exclude each other",
    ),
    Case(
        ".spec.autoscaling",
        "minReplicas exceeds",
        accepted=autoscaling(minReplicas=4),
        rejected=autoscaling(minReplicas=5),
        error="minReplicas 5 exceeds maxReplicas 4",
    ),
    Case(
        ".spec.autoscaling.metric",
        "target exceeds 1",
        accepted=autoscaling(metric={"name": "kvCacheUsage", "target": 1}),
        rejected=autoscaling(metric={"name": "kvCacheUsage", "target": 1.5}),
        error="target 1.5 exceeds 1: kvCacheUsage is a share",
    ),
    Case(
        ".spec.autoscaling.prometheusAddress",
        "prometheusAddress is not",
        accepted=autoscaling(prometheusAddress="https://prom.example/prefix"),
        rejected=autoscaling(prometheusAddress="prometheus:9090"),
        error="prometheusAddress 'prometheus:9090' is not an http or https URL",
    ),
    *(
        Case(
            ".spec.autoscaling",
            f"provider KEDA needs {field}",
            accepted=autoscaling(),
            rejected={"autoscaling": {k: v for k, v in autoscaling()["autoscaling"].items() if k != field}},
            error=f"provider KEDA needs {field}: set it, or provider to Builtin",
        )
        for field in ("metric", "prometheusAddress")
    ),
    *(
        Case(
            ".spec.autoscaling",
            f"{field} is for provider KEDA",
            accepted=builtin(),
            rejected=builtin(**{field: value}),
            error=f"{field} is for provider KEDA: remove it, or change provider from Builtin",
        )
        for field, value in autoscaling()["autoscaling"].items()
        if field != "maxReplicas"
    ),
    *(
        Case(
            ".spec.autoscaling",
            f"{field} is for provider Builtin",
            accepted=builtin(**{field: 60}),
            rejected=autoscaling(**{field: 60}),
            error=f"{field} is for provider Builtin: remove it, or change provider from KEDA",
        )
        for field in ("stabilizationSeconds", "idleSeconds", "holdSeconds")
    ),
]

TUNING = [
    Case(
        f".spec.tuning.bounds.{name}",
        "min exceeds max",
        accepted=bounds(name, min=low, max=low),
        rejected=bounds(name, min=high, max=low),
        error=f"min {high} exceeds max {low}",
    )
    for name, low, high in [
        ("maxNumBatchedTokens", 512, 4096),
        ("maxNumSeqs", 8, 64),
        ("maxNumLogits", 128, 256),
        ("refreshShare", 0.25, 0.5),
    ]
]

RESERVED_ENVIRONMENT = [
    "DLLM_MODEL",
    "DLLM_PORT",
    "DLLM_DEVICE",
    "DLLM_TUNING_FILE",
    "DLLM_API_KEYS_FILE",
    "DLLM_REVISION",
    "DLLM_SERVED_MODEL_NAME",
    "DLLM_MAX_NUM_SEQS",
    "DLLM_SHUTDOWN_GRACE_SECONDS",
    "DLLM_TERMINATION_LOG",
    "DLLM_METRICS_PORT",
    "HF_HOME",
    "HF_TOKEN",
    "dllm_model",
    "Dllm_Max_Num_Seqs",
]
TEMPLATES: dict[str, Callable[[Fields], Fields]] = {
    ".spec.podTemplate": lambda fields: {"podTemplate": fields},
    ".spec.gpuPools[]": lambda fields: {"gpuPools": [{"name": "a"} | fields]},
}
RESERVED_LABELS = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/name",
    "llm-d.ai/engine-type",
    "serving.dllm.dev/pool",
]

PODS = [
    Case(
        ".spec.podTemplate.env[]",
        "env sets a variable",
        accepted=env(name="DLLM_LOG_LEVEL", value="debug"),
        rejected=env(name=name, value="x"),
        error=f"env '{name}' is set by the operator itself",
    )
    for name in RESERVED_ENVIRONMENT
]
PODS += [
    Case(
        ".spec.podTemplate",
        "labels sets a label",
        accepted={"podTemplate": {"labels": {"team": "search"}}},
        rejected={"podTemplate": {"labels": {"team": "search", label: "x"}}},
        error="labels sets a label that the operator selects its pods by",
    )
    for label in RESERVED_LABELS
]
PODS += [
    Case(
        ".spec.podTemplate.env[]",
        "env takes a setting",
        accepted=env(name="DLLM_LOG_LEVEL", value="debug"),
        rejected={"podTemplate": {"env": [elsewhere]}},
        error="env 'DLLM_LOG_LEVEL' takes a setting of the server from elsewhere",
    )
    for elsewhere in (
        {"name": "DLLM_LOG_LEVEL", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
        {"name": "DLLM_LOG_LEVEL", "value": "x$(PASSWORD)"},
    )
]
PODS += [
    Case(
        f"{path}.tolerations[]",
        rule,
        accepted=wrap({"tolerations": [accepted]}),
        rejected=wrap({"tolerations": [rejected]}),
        error=rule,
    )
    for path, wrap in TEMPLATES.items()
    for rule, accepted, rejected in (
        (
            "operator Exists takes any value",
            {"key": "a", "operator": "Exists", "value": ""},
            {"key": "a", "operator": "Exists", "value": "b"},
        ),
        ("a toleration without a key", {"operator": "Exists"}, {"value": "b"}),
        (
            "tolerationSeconds is for effect NoExecute",
            {"key": "a", "effect": "NoExecute", "tolerationSeconds": 5},
            {"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5},
        ),
    )
]
PODS += [
    Case(
        f"{path}.resources",
        "a request exceeds the limit",
        accepted=wrap({"resources": {"requests": {"cpu": "1500m", "memory": 1024}, "limits": {"cpu": 2}}}),
        rejected=wrap({"resources": {"requests": {"cpu": "2001m"}, "limits": {"cpu": 2}}}),
        error="a request exceeds the limit of the same resource",
    )
    for path, wrap in TEMPLATES.items()
]
PODS.append(
    Case(
        ".spec.podTemplate.env[]",
        "env has both",
        accepted=env(name="A", valueFrom={"fieldRef": {"fieldPath": "metadata.name"}}),
        rejected=env(name="A", value="x", valueFrom={"fieldRef": {"fieldPath": "metadata.name"}}),
        error="env 'A' has both value and valueFrom",
    )
)

PODS.append(
    Case(
        ".spec.podTemplate.resourceClaims[]",
        "a claim needs",
        accepted={"podTemplate": {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one"}]}},
        rejected={"podTemplate": {"resourceClaims": [{"name": "gpu"}]}},
        error="a claim needs exactly one of",
    )
)
PODS.append(
    Case(
        ".spec.podTemplate.rollingUpdate",
        "maxSurge and maxUnavailable",
        accepted={"podTemplate": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}},
        rejected={"podTemplate": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
        error="maxSurge and maxUnavailable are both 0",
    )
)
PODS.append(
    Case(
        ".spec.podTemplate.rollingUpdate",
        "mode Auto",
        accepted={"podTemplate": {"rollingUpdate": {"mode": "Fixed", "maxSurge": 2}}},
        rejected={"podTemplate": {"rollingUpdate": {"mode": "Auto", "maxSurge": 2}}},
        error="mode Auto chooses maxSurge and maxUnavailable itself",
    )
)

CREATIONS = [*MODELS, *SCALES, *TUNING, *PODS]
CASES = [*NAMES, *CREATIONS, *CHANGES]


@dataclass(frozen=True)
class Refusal:
    """Specs on both sides of what the schema itself says."""

    what: str
    accepted: Fields
    rejected: Fields
    error: str = field(default="Invalid value")

    def __str__(self) -> str:
        return self.what


REFUSALS = [
    Refusal(
        "two pools of one name",
        {"gpuPools": [{"name": "a"}, {"name": "b"}]},
        {"gpuPools": [{"name": "a"}, {"name": "a"}]},
        "Duplicate value",
    ),
    Refusal(
        "two variables of one name",
        {"podTemplate": {"env": [{"name": "A"}, {"name": "B"}]}},
        {"podTemplate": {"env": [{"name": "A"}, {"name": "A"}]}},
        "Duplicate value",
    ),
    Refusal("no pools", {"gpuPools": [{"name": "a"}]}, {"gpuPools": []}),
    Refusal(
        "seventeen pools",
        {"gpuPools": [{"name": f"p{index}"} for index in range(16)]},
        {"gpuPools": [{"name": f"p{index}"} for index in range(17)]},
        "Too many",
    ),
    Refusal(
        "a long pool name", {"gpuPools": [{"name": "a" * 20}]}, {"gpuPools": [{"name": "a" * 21}]}, "Too long"
    ),
    Refusal("a pool name in capitals", {"gpuPools": [{"name": "a100-80"}]}, {"gpuPools": [{"name": "A100"}]}),
    Refusal(
        "memory above the most to aim at",
        {"tuning": {"targetMemoryUtilization": 0.98}},
        {"tuning": {"targetMemoryUtilization": 0.99}},
    ),
    Refusal(
        "memory below the least to aim at",
        {"tuning": {"targetMemoryUtilization": 0.5}},
        {"tuning": {"targetMemoryUtilization": 0.4}},
    ),
    Refusal("a hasty tuner", {"tuning": {"intervalSeconds": 5}}, {"tuning": {"intervalSeconds": 4}}),
    Refusal("more requests than slots", bounds("maxNumSeqs", max=4096), bounds("maxNumSeqs", max=4097)),
    Refusal("a share of nothing", bounds("refreshShare", min=0.01), bounds("refreshShare", min=0)),
    Refusal("negative replicas", {"replicas": 0}, {"replicas": -1}),
    Refusal(
        "seventeen GPUs a pod",
        {"gpuPools": [{"name": "a", "gpusPerReplica": 16}]},
        {"gpuPools": [{"name": "a", "gpusPerReplica": 17}]},
    ),
    Refusal(
        "a watermark of everything",
        {"engine": {"admissionWatermark": 0.5}},
        {"engine": {"admissionWatermark": 1}},
    ),
    Refusal("a size in words", {"engine": {"kvPoolBytes": "2GiB"}}, {"engine": {"kvPoolBytes": "two"}}),
    Refusal("a negative size", {"engine": {"kvPoolBytes": 1048576}}, {"engine": {"kvPoolBytes": -1}}),
    Refusal(
        "a size without its unit",
        {"engine": {"gpuMemoryLimit": 25769803776}},
        {"engine": {"gpuMemoryLimit": 24}},
    ),
    Refusal(
        "a size without its unit, as text",
        {"engine": {"gpuMemoryLimit": "25769803776"}},
        {"engine": {"gpuMemoryLimit": "24"}},
    ),
    Refusal(
        "a quantity in words",
        {"podTemplate": {"resources": {"limits": {"cpu": 2, "memory": "1.5Gi"}}}},
        {"podTemplate": {"resources": {"limits": {"cpu": "two"}}}},
    ),
    Refusal(
        "a quantity of a hundred zeros",
        {"podTemplate": {"resources": {"limits": {"cpu": "1e99", "memory": "1e-9"}}}},
        {"podTemplate": {"resources": {"limits": {"cpu": "1e100"}}}},
    ),
    Refusal("a port out of range", {"networking": {"port": 65535}}, {"networking": {"port": 65536}}),
    Refusal("a target of nothing", autoscaling(metric={"target": 0.1}), autoscaling(metric={"target": 0})),
    Refusal("no time to be idle", builtin(idleSeconds=1), builtin(idleSeconds=0)),
    Refusal(
        "a pool that costs nothing",
        {"gpuPools": [{"name": "a", "costPerHour": 0.5}]},
        {"gpuPools": [{"name": "a", "costPerHour": 0}]},
    ),
    Refusal("an image of two words", {"image": "example.local/dllm:1"}, {"image": "dllm 1"}),
]
