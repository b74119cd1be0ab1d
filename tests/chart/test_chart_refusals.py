"""Values that can never work are refused by name; unusual ones that work are taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from conftest import Tools

pytestmark = pytest.mark.cluster

CHART = Path(__file__).resolve().parents[2] / "charts" / "dllm-operator"
SHA = "sha256:" + "0f" * 32
NEVER: list[tuple[str, list[Any]]] = [
    ("nameOverride", ["UPPER_CASE", "-a", "a-", "a.b", "a" * 51, 1]),
    ("fullnameOverride", ["UPPER_CASE", "9lives", "a b", "a_b", "a" * 51]),
    ("watchNamespaces", ["default", ["Default"], ["a.b"], ["a", "a"], [""], ["a" * 64]]),
    ("imagePullSecrets", ["registry", ["registry"], [{"name": ""}], [{"name": "A"}], [{"nane": "a"}]]),
    ("operator", [{"replica": 3}, "two"]),
    (
        "operator.image",
        [
            "@@@",
            "a b",
            "a/UPPER",
            "a:",
            "a:b:c",
            "a@sha256:0f",
            "a//b",
            "/a",
            "https://a/b",
            "a:-b",
            {"tag": "b"},
        ],
    ),
    ("operator.imagePullPolicy", ["always", "", True]),
    ("operator.replicas", [-1, 11, 1.5, "2"]),
    ("operator.logLevel", ["verbose", "INFO", ""]),
    ("operator.logFormat", ["xml", ""]),
    ("operator.resyncSeconds", [0, -1, 1.5, "10m"]),
    ("operator.takeoverSeconds", [-1, 1.5, "2m"]),
    ("operator.httpPort", [0, 80, 65536, "http"]),
    (
        "operator.resources",
        [
            {"request": {}},
            {"requests": {"cpu": "100x"}},
            {"requests": {"cpu": -1}},
            {"limits": {"memory": "1 Gi"}},
            {"limits": {"memory": "-1Gi"}},
            {"limits": {"memory": "1GB"}},
            {"limits": {"Memory": "1Gi"}},
            {"limits": {"gpu": 1}},
            {"limits": "1Gi"},
        ],
    ),
    (
        "operator.extraEnv",
        [
            {"A": "b"},
            [{"value": "a"}],
            [{"name": ""}],
            [{"name": "A=B", "value": "a"}],
            [{"name": "A", "value": 1}],
            [{"name": "A", "value": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            [{"name": "A", "valueFrom": {"secretRef": {"name": "a"}}}],
            [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a"}}}],
            [{"name": "A", "val": "a"}],
        ],
    ),
    ("operator.podAnnotations", [{"a b": "c"}, {"a/b/c": "d"}, {"": "a"}, {"a": 1}, {"a" * 64: "b"}]),
    (
        "operator.podLabels",
        [{"a": "b c"}, {"-a": "b"}, {"a/": "b"}, {"A.b/c": "d"}, {"a": "b" * 64}, {"a": True}],
    ),
    ("operator.priorityClassName", ["High", "a_b", "a/b"]),
    ("operator.nodeSelector", [{"a b": "c"}, {"a": "-"}, {"disk": True}]),
    (
        "operator.tolerations",
        [
            [{"key": "a", "operator": "Exist"}],
            [{"key": "a", "operator": "Exists", "value": "b"}],
            [{"operator": "Equal", "value": "b"}],
            [{"value": "b"}],
            [{"key": "a", "effect": "noSchedule"}],
            [{"key": "a b", "operator": "Exists"}],
            [{"key": "a", "tolerationSeconds": "5"}],
            {"key": "a"},
        ],
    ),
    ("operator.affinity", [{"podAntiAfinity": {}}, {"nodeAffinity": []}, []]),
    (
        "operator.topologySpreadConstraints",
        [
            [{"maxSkew": 1}],
            [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            [{"maxSkew": 1, "topologyKey": "", "whenUnsatisfiable": "ScheduleAnyway"}],
            [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "Schedule"}],
        ],
    ),
    (
        "operator.podSecurityContext",
        [{"runAsUser": "dllm"}, {"runAsUser": -1}, {"fsGruop": 1}, {"runAsNonRoot": "yes"}],
    ),
    (
        "operator.securityContext",
        [
            {"readOnlyRootFileSystem": True},
            {"capabilities": {"drop": "ALL"}},
            {"seccompProfile": {"type": "Default"}},
        ],
    ),
    ("server", [{"tag": "a"}]),
    ("server.image", ["@@@", "a:b@", "A"]),
    ("server.imagePullPolicy", ["Sometimes"]),
    ("frontDoor.image", ["", "@@@"]),
    ("frontDoor.clusterDomain", ["", "a_b", "cluster..local"]),
    (
        "tuning.prometheusUrl",
        ["prometheus:9090", "http://", "ftp://a", "http://a b", "http:// ", "http://:9090"],
    ),
    ("crds.enabled", ["yes", 1]),
    ("crds.keep", ["no"]),
    ("rbac.create", ["true"]),
    ("rbac.userRoles", [0]),
    ("serviceAccount.create", ["false"]),
    ("serviceAccount.name", ["Operator", "a/b", "a_b"]),
    ("serviceAccount.annotations", [{"a b": "c"}, {"a": 1}]),
    ("podDisruptionBudget.enabled", [2]),
    ("metrics.service.enabled", ["on"]),
    ("metrics.service.annotations", [{"prometheus.io/scrape": True}]),
    ("metrics.podMonitor.enabled", ["on"]),
    ("prometheusRule", [{"enable": True}]),
    ("prometheusRule.enabled", ["on"]),
    ("prometheusRule.labels", [{"release": True}, {"a b": "c"}]),
    ("prometheusRule.runbookUrl", ["", "https://a b", "https://wiki/runbook#alerts"]),
    ("dashboards.enabled", ["on"]),
    ("dashboards.labels", [{"grafana_dashboard": 1}]),
    ("dashboards.annotations", [{"grafana_folder": True}]),
    ("tracing.endpoint", ["collector:4318", "http://", "ftp://a", "http://a b"]),
    ("metrics.podMonitor.interval", ["30", "", "1s1m", "-1s", "30 s", 30]),
    ("metrics.podMonitor.labels", [{"release": "a b"}, {"a/b/c": "d"}]),
    ("networkPolicy.enabled", ["on"]),
    (
        "networkPolicy.ingressFrom",
        [
            [{}],
            [{"podSelecter": {}}],
            [{"podSelector": {"a": "b"}}],
            [{"ipBlock": {"cidr": "10.0.0.0"}}],
            [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}],
        ],
    ),
    ("networkPolicy.apiServerPorts", [[], [0], ["https"], 443]),
    (
        "networkPolicy.extraEgress",
        [[{"from": []}], [{"ports": [{"port": 70000}]}], [{"ports": [{"protocol": "tcp"}]}]],
    ),
    ("rollouts.maxConcurrentPools", [0, -1, 1.5, "2"]),
    ("policies.allowedImages", [["a b"], [""], ["a", "a"], "a"]),
    ("policies.allowedModelSources", [["GSAI-ML"], ["pvc:/models"], [""], "embedded"]),
    ("policies.maxGpusPerNamespace", [-1, "8", 1.5]),
    ("tests.timeoutSeconds", [0, "5m"]),
    ("tests.spec", [{"model": None}, {"model": {"source": ""}}, "embedded"]),
    ("operater", [{}]),
]
WORKS: list[tuple[str, list[Any]]] = [
    ("nameOverride", ["", "a", "9lives", "a" * 50]),
    ("fullnameOverride", ["", "serving-operator"]),
    (
        "operator.image",
        [
            "a",
            "a/b",
            "localhost/a:dev",
            "host:5000/a/b:1",
            f"a@{SHA}",
            f"h.example/a__b/c-d:1.0_x@{SHA}",
            "[::1]:5000/a",
        ],
    ),
    (
        "operator.resources",
        [
            {},
            {"limits": {"cpu": 2, "memory": "1.5Gi", "nvidia.com/gpu": 1, "hugepages-2Mi": "4Mi"}},
            {"requests": {"cpu": ".5"}},
        ],
    ),
    (
        "operator.extraEnv",
        [
            [{"name": "A"}, {"name": "a.b-c", "value": ""}],
            [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b", "optional": True}}}],
        ],
    ),
    ("operator.podAnnotations", [{"Example.com/A_b": "any text, of any kind"}]),
    ("operator.podLabels", [{"example.com/a": "", "A_b.c": "D-e_f.g"}]),
    ("operator.tolerations", [[{"operator": "Exists"}], [{"key": "a", "value": "b", "effect": "NoExecute"}]]),
    ("operator.podSecurityContext", [{}, {"runAsNonRoot": True, "supplementalGroups": [1]}]),
    ("tuning.prometheusUrl", ["", "http://prometheus.monitoring:9090", "https://u:p@[::1]:9090/prefix?a=b"]),
    ("metrics.podMonitor.interval", ["1m30s", "500ms", "1h"]),
    ("prometheusRule.runbookUrl", ["docs/runbook.md", "https://wiki.example/a/b?page=1"]),
    ("tracing.endpoint", ["", "http://collector.observability:4318", "https://otlp.example/prefix"]),
    (
        "networkPolicy.ingressFrom",
        [
            [{"ipBlock": {"cidr": "fd00::/8", "except": ["fd00:1::/32"]}}],
            [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}}],
        ],
    ),
    ("networkPolicy.extraEgress", [[{"to": [], "ports": [{"port": "http", "protocol": "TCP"}]}], [{}]]),
]


def nested(name: str, value: Any) -> dict[str, Any]:
    """``{"a": {"b": value}}`` for ``a.b``."""
    for key in reversed(name.split(".")):
        value = {key: value}
    return dict(value)


def render(tools: Tools, name: str, value: Any) -> tuple[int, str]:
    values = yaml.safe_dump(nested(name, value))
    done = tools.run("helm", "template", "dllm", str(CHART), "--values", "-", stdin=values)
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", [name for name, _ in NEVER])
def test_values_that_can_never_work_are_refused_by_name(tools: Tools, name: str) -> None:
    answers = {json.dumps(value): render(tools, name, value) for value in dict(NEVER)[name]}

    assert [value for value, (code, _) in answers.items() if code == 0] == []
    assert [value for value, (_, said) in answers.items() if name.replace(".", "/") not in said] == []


@pytest.mark.parametrize("name", [name for name, _ in WORKS])
def test_unusual_values_that_work_are_taken(tools: Tools, name: str) -> None:
    answers = {json.dumps(value): render(tools, name, value) for value in dict(WORKS)[name]}

    assert {value: said for value, (code, said) in answers.items() if code} == {}


def test_every_value_has_refused_examples() -> None:
    def leaves(schema: dict[str, Any], path: str) -> list[str]:
        inner = schema.get("properties")
        return (
            [path]
            if inner is None
            else [leaf for key, one in inner.items() for leaf in leaves(one, f"{path}.{key}")]
        )

    schema = json.loads((CHART / "values.schema.json").read_text())
    known = {leaf.lstrip(".") for leaf in leaves(schema, "")} - {"global"}

    assert known - {name for name, _ in NEVER} == set()
