"""The CRD on a real API server: every rule and enum accepts one object and refuses another."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dllm_operator.api.crd import crd
from dllm_operator.api.v1alpha1 import API_VERSION, GROUP, KIND, PLURAL, VERSION, ModelSource
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tests.cluster.cluster import Cluster
from tests.cluster.crd_cases import (
    CASES,
    CHANGES,
    CREATIONS,
    EMBEDDED,
    NAMES,
    REFUSALS,
    Case,
    Fields,
    Refusal,
)

pytestmark = pytest.mark.cluster

FILE = Path(__file__).resolve().parents[2] / "crds" / f"{GROUP}_{PLURAL}.yaml"
SECONDS = 30.0
Kubectl = Callable[..., str]


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """With a discovery cache of its own, made when no other test's group has the resource's short names."""
    cluster.wait_for("no other group", lambda: f".{GROUP} " not in f"{crd_names(cluster)} ")
    cache = str(tmp_path_factory.mktemp("kubectl"))
    return lambda *arguments: cluster.kubectl("--cache-dir", cache, *arguments)


def crd_names(cluster: Cluster) -> str:
    """Names of all but ours, between spaces."""
    names = (line.rpartition("/")[2] for line in cluster.kubectl("get", "crd", "-o", "name").split())
    return " ".join(name for name in names if name != f"{PLURAL}.{GROUP}")


class Resources:
    """DLLMDeployments of the tests' namespace."""

    def __init__(self, kubeconfig: str | None, namespace: str) -> None:
        config.load_kube_config(kubeconfig)
        self.namespace = namespace
        self._api = client.CustomObjectsApi()
        self._where = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}

    def create(self, spec: Fields, name: str = "a", *, dry_run: bool = True) -> dict[str, Any]:
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": EMBEDDED | spec}
        options = {"dry_run": "All"} if dry_run else {}
        return self._api.create_namespaced_custom_object(
            **self._where, body=body, field_validation="Strict", **options
        )

    def replace(self, body: dict[str, Any], spec: Fields) -> dict[str, Any]:
        return self._api.replace_namespaced_custom_object(
            **self._where, name=body["metadata"]["name"], body=body | {"spec": spec}, dry_run="All"
        )

    def write_status(self, body: dict[str, Any], status: Fields, *, dry_run: bool = True) -> dict[str, Any]:
        options = {"dry_run": "All"} if dry_run else {}
        return self._api.patch_namespaced_custom_object_status(
            **self._where, name=body["metadata"]["name"], body={"status": status}, **options
        )

    def read(self, name: str) -> dict[str, Any]:
        return self._api.get_namespaced_custom_object(**self._where, name=name)

    def delete(self, name: str) -> None:
        self._api.delete_namespaced_custom_object(**self._where, name=name)


@pytest.fixture(scope="module")
def resources(cluster: Cluster, kubectl: Kubectl) -> Iterator[Resources]:
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(FILE))
    wait_until_served(kubectl)
    with cluster.temporary_namespace("crd") as namespace:
        yield Resources(cluster.env.get("KUBECONFIG"), namespace)


def wait_until_served(kubectl: Kubectl) -> None:
    """A CRD that was just changed is served some moments later; until then the old rules hold."""
    deadline = time.monotonic() + SECONDS
    while (served := served_rules(kubectl)) != RULES:
        assert time.monotonic() < deadline, f"after {SECONDS} s the API server has {len(served)} other rules"
        time.sleep(0.2)


def served_rules(kubectl: Kubectl) -> list[tuple[str, Fields]]:
    document = json.loads(kubectl("get", "--raw", "/openapi/v3"))
    address = document["paths"].get(f"apis/{API_VERSION}", {}).get("serverRelativeURL")
    if address is None:
        return []
    schemas = json.loads(kubectl("get", "--raw", address))["components"]["schemas"]
    served = next((schema for name, schema in schemas.items() if name.endswith(f".{KIND}")), {})
    return rules(dict(walk(served)))


def with_error(call: Callable[[], Any]) -> str:
    """What the API server says to a request that it must refuse as invalid."""
    try:
        call()
    except ApiException as error:
        assert error.status == 422, error.body
        return str(json.loads(error.body)["message"])
    raise AssertionError("the API server accepted it")


def walk(schema: Fields, path: str = "") -> Iterator[tuple[str, Fields]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from walk(part, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")


def rules(schemas: dict[str, Fields]) -> list[tuple[str, Fields]]:
    found = [
        (path, rule) for path, part in schemas.items() for rule in part.get("x-kubernetes-validations", [])
    ]
    return sorted(found, key=lambda entry: (entry[0], entry[1]["rule"]))


SCHEMAS = dict(walk(crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))
RULES = rules(SCHEMAS)
ENUMS = {path: schema["enum"] for path, schema in SCHEMAS.items() if "enum" in schema}


def test_every_rule_has_an_accepted_and_a_rejected_object() -> None:
    uncovered = [
        f"{path}: {rule['message']}"
        for path, rule in RULES
        if not any(case.path == path and rule["message"].startswith(case.rule) for case in CASES)
    ]

    assert uncovered == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case_is_of_one_rule(case: Case) -> None:
    matching = [rule for path, rule in RULES if path == case.path and rule["message"].startswith(case.rule)]

    assert len(matching) == 1


@pytest.mark.parametrize("case", NAMES, ids=str)
def test_a_name_is_accepted_and_another_refused(resources: Resources, case: Case) -> None:
    resources.create({}, str(case.accepted))

    assert case.error in with_error(lambda: resources.create({}, str(case.rejected)))


@pytest.mark.parametrize("case", CREATIONS, ids=str)
def test_a_rule_accepts_one_object_and_refuses_another(resources: Resources, case: Case) -> None:
    assert isinstance(case.accepted, dict)
    resources.create(case.accepted)

    assert case.error in with_error(lambda: resources.create(case.rejected))


@pytest.mark.parametrize(
    "source",
    [
        "embedded",
        "Embedded",
        "GSAI-ML/LLaDA-8B-Instruct",
        "llada",
        "a/b/c",
        "a/b\n",
        "/models/llada",
        "./llada",
        "pvc://models",
        "pvc://models/",
        "pvc://models//llada",
        "pvc://models/llada/8b",
        "pvc://models/..",
        "pvc://models/./llada",
        "pvc://Models/llada",
        "pvc://",
    ],
)
def test_the_api_server_accepts_a_source_exactly_when_the_operator_reads_it(
    resources: Resources, source: str
) -> None:
    try:
        ModelSource.parse(source)
    except ValueError:
        assert "source " in with_error(lambda: resources.create({"model": {"source": source}}))
    else:
        resources.create({"model": {"source": source}})


@pytest.mark.parametrize("case", CHANGES, ids=str)
def test_a_rule_accepts_one_change_and_refuses_another(resources: Resources, case: Case) -> None:
    assert isinstance(case.accepted, dict)
    assert isinstance(case.rejected, dict)
    before = resources.create(case.before or {}, "changing", dry_run=False)
    try:
        resources.replace(before, case.accepted)

        assert case.error in with_error(lambda: resources.replace(before, case.rejected))
    finally:
        resources.delete("changing")


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_the_schema_accepts_one_object_and_refuses_another(resources: Resources, refusal: Refusal) -> None:
    resources.create(refusal.accepted)

    assert refusal.error in with_error(lambda: resources.create(refusal.rejected))


def test_every_tuner_bound_and_pool_setting_refuses_an_unknown_field(resources: Resources) -> None:
    with pytest.raises(ApiException) as error:
        resources.create({"gpuPools": [{"name": "a", "engine": {"maxSeqs": 1}}]})

    assert 'unknown field \\"spec.gpuPools[0].engine.maxSeqs\\"' in error.value.body


COMPLETE: Fields = {
    "model": {
        "source": "GSAI-ML/LLaDA-8B-Instruct",
        "revision": "main",
        "servedName": "llada",
        "tokenSecret": {"name": "hub"},
        "cache": {"size": "40Gi"},
    },
    "gpuPools": [{"name": "a", "tolerations": [{"key": "gpu"}], "engine": {}}],
    "engine": {},
    "tuning": {},
    "autoscaling": {"maxReplicas": 2, "metric": {"target": 0.5}, "prometheusAddress": "http://prom:9090"},
    "podTemplate": {"tolerations": [{"key": "gpu"}]},
}


# What an item needs beside the field that is tried.
NEEDED: dict[str, Fields] = {
    "matchExpressions[]": {"key": "k"},
    "matchFields[]": {"key": "k"},
    "podAffinityTerm": {"topologyKey": "zone"},
    "requiredDuringSchedulingIgnoredDuringExecution[]": {"topologyKey": "zone"},
    "preferredDuringSchedulingIgnoredDuringExecution[]": {"weight": 1},
}


# Fields that a value does not go with.
EXCLUDED = {"Builtin": ("metric", "prometheusAddress")}


def with_value(fields: Fields, path: str, value: str) -> Fields:
    """A copy with ``value`` at ``.spec.a.b[].c``, in the first item of each list."""
    changed = copy.deepcopy(fields)
    *parents, last = path.split(".")
    part: Any = changed
    for name in parents:
        part = part.setdefault(name.removesuffix("[]"), [{}] if name.endswith("[]") else {})
        part = part[0] if name.endswith("[]") else part
        part.update(NEEDED.get(name, {}))
    part[last] = value
    for name in EXCLUDED.get(value, ()):
        del part[name]
    return changed


@pytest.mark.parametrize("path", [path for path in ENUMS if path.startswith(".spec.")])
def test_an_enum_accepts_its_values_and_refuses_others(resources: Resources, path: str) -> None:
    inside = path.removeprefix(".spec.")
    for value in ENUMS[path]:
        resources.create(with_value(COMPLETE, inside, value))

    error = with_error(lambda: resources.create(with_value(COMPLETE, inside, "nonsense")))

    assert 'Unsupported value: "nonsense"' in error


def make_condition(status: str) -> Fields:
    return {
        "type": "Ready",
        "status": status,
        "reason": "Serving",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }


def test_a_condition_is_true_false_or_unknown(resources: Resources) -> None:
    assert [path for path in ENUMS if not path.startswith(".spec.")] == [".status.conditions[].status"]
    body = resources.create({}, "conditioned", dry_run=False)
    try:
        for status in ENUMS[".status.conditions[].status"]:
            resources.write_status(body, {"conditions": [make_condition(status)]})

        error = with_error(lambda: resources.write_status(body, {"conditions": [make_condition("Maybe")]}))
    finally:
        resources.delete("conditioned")

    assert 'Unsupported value: "Maybe"' in error


def test_the_api_server_writes_the_documented_defaults(resources: Resources) -> None:
    assert resources.create({})["spec"] == {
        "model": {"source": "embedded"},
        "device": "cuda",
        "tuning": {"mode": "Off", "targetMemoryUtilization": 0.9, "intervalSeconds": 60},
    }


@pytest.mark.parametrize(
    "path", sorted(path for path in SCHEMAS if path.startswith(".spec") and "properties" in SCHEMAS[path])
)
def test_kubectl_explains_every_field(kubectl: Kubectl, resources: Resources, path: str) -> None:
    explained = " ".join(kubectl("explain", f"dllmdeployment{path.replace('[]', '')}").split())

    for name, field in SCHEMAS[path]["properties"].items():
        assert f"{name} <" in explained
        assert " ".join(field["description"].split()) in explained


def test_kubectl_scales_and_an_autoscaler_finds_the_pods(kubectl: Kubectl, resources: Resources) -> None:
    body = resources.create({}, "scaled", dry_run=False)
    try:
        resources.write_status(body, {"replicas": 1, "selector": "app=dllm"}, dry_run=False)
        kubectl("scale", "dllm/scaled", "--replicas=3", "-n", resources.namespace)

        path = f"/apis/{GROUP}/{VERSION}/namespaces/{resources.namespace}/{PLURAL}/scaled/scale"
        scale = json.loads(kubectl("get", "--raw", path))
        replicas = resources.read("scaled")["spec"]["replicas"]
    finally:
        resources.delete("scaled")

    assert replicas == 3
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 1, "selector": "app=dllm"}


def test_the_columns_show_the_model_and_its_state(kubectl: Kubectl, resources: Resources) -> None:
    body = resources.create({}, "shown", dry_run=False)
    settled = make_condition("False") | {"type": "Progressing", "reason": "Settled"}
    conditions = [make_condition("True"), settled]
    status = {"conditions": conditions, "replicas": 2, "gpus": 4, "url": "http://shown:8000"}
    try:
        resources.write_status(body, status, dry_run=False)

        titles, *rows = kubectl("get", "dllm", "-n", resources.namespace).splitlines()
        wide_titles, *wide_rows = kubectl("get", "dllm", "-n", resources.namespace, "-o", "wide").splitlines()
        of_category = kubectl("get", "all", "-n", resources.namespace)
    finally:
        resources.delete("shown")

    assert titles.split() == ["NAME", "MODEL", "READY", "REPLICAS", "GPUS", "TUNING", "ROLLOUT", "AGE"]
    assert rows[0].split()[:-1] == ["shown", "embedded", "True", "2", "4", "Off", "Settled"]
    assert wide_titles.split()[-4:] == ["REASON", "TUNED", "CONVERGED", "URL"]
    assert wide_rows[0].split()[-2:] == ["Serving", "http://shown:8000"]
    assert f"dllmdeployment.{GROUP}/shown" in of_category


def test_no_field_keeps_more_levels_than_a_reader_takes(
    kubectl: Kubectl, resources: Resources, tmp_path: Path
) -> None:
    """One resource that no reader of Python's takes would hide all others, which come in the same list."""
    levels = 2000
    deep = '{"a":' * levels + "1" + "}" * levels
    spec = {
        "model": {"source": "embedded"},
        "podTemplate": {"affinity": "DEEP", "env": [{"name": "A", "valueFrom": "DEEP"}]},
        "networking": {"networkPolicy": {"from": ["DEEP"]}},
    }
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "deep"}, "spec": spec}
    file = tmp_path / "deep.json"
    file.write_text(json.dumps(body).replace('"DEEP"', deep))

    path = f"/apis/{API_VERSION}/namespaces/{resources.namespace}/{PLURAL}"
    kubectl("create", "--raw", path, "-f", str(file))

    listed = json.loads(kubectl("get", "--raw", path))
    assert [item["spec"]["podTemplate"]["affinity"] for item in listed["items"]] == [{}]
    resources.delete("deep")
