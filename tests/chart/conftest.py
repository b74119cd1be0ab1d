"""Helm and kubectl for the chart's tests."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.cluster import Cluster
from tests.cluster.resources import eventually

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "dllm-operator"
CRD_FILE = CHART / "files" / "crd.yaml"
DIGEST = "0f" * 32
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "namespaces": {"watchNamespaces": ["default", "kube-public"]},
    "everything": {
        "imagePullSecrets": [{"name": "registry"}],
        "operator": {
            "image": f"registry.example/team/operator@sha256:{DIGEST}",
            "extraEnv": [{"name": "PROXY", "value": "http://proxy"}],
            "podAnnotations": {"example.com/owner": "team"},
            "podLabels": {"team": "serving"},
            "priorityClassName": "system-cluster-critical",
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "control", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "topology.kubernetes.io/zone",
                    "whenUnsatisfiable": "ScheduleAnyway",
                }
            ],
        },
        "serviceAccount": {"annotations": {"example.com/role": "operator"}},
        "metrics": {
            "service": {"annotations": {"example.com/scrape": "true"}},
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        },
        "prometheusRule": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "runbookUrl": "https://wiki.example/runbook",
        },
        "tracing": {"endpoint": "http://collector.observability:4318"},
        "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Models"}},
        "networkPolicy": {"enabled": True, "ingressFrom": [{"namespaceSelector": {}}]},
        "policies": {
            "allowedImages": ["docker.io/dllmserve/"],
            "allowedModelSources": ["embedded", "GSAI-ML/", "pvc://models"],
            "maxGpusPerNamespace": 8,
        },
    },
    "minimal": {
        "operator": {"replicas": 1},
        "crds": {"enabled": False},
        "rbac": {"create": False, "userRoles": False},
        "serviceAccount": {"create": False},
        "podDisruptionBudget": {"enabled": False},
        "metrics": {"service": {"enabled": False}},
    },
}

DEFINITION_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Tools:
    """Helm and kubectl in an environment where they are found."""

    environment: Mapping[str, str]

    def run(self, *command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=dict(self.environment),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def check(self, *command: str, stdin: str | None = None) -> str:
        done = self.run(*command, stdin=stdin)
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr or done.stdout}"
        return done.stdout

    def await_definition(self, name: str) -> None:
        """Until the definition of that name is served: `kubectl wait` fails on one that has no status yet."""
        established = """-o=jsonpath={.status.conditions[?(@.type=="Established")].status}"""

        def is_served() -> None:
            assert self.check("kubectl", "get", "crd", name, established) == "True", (
                f"{name} is not established"
            )

        eventually(is_served, DEFINITION_SECONDS)

    def render(self, values: Mapping[str, Any], namespace: str = "dllm-system") -> list[dict[str, Any]]:
        """The objects of release ``dllm``, the test's hooks included."""
        command = ("helm", "template", "dllm", str(CHART), "--namespace", namespace, "--values", "-")
        return [one for one in yaml.safe_load_all(self.check(*command, stdin=yaml.safe_dump(values))) if one]


@pytest.fixture(scope="session")
def tools(cluster: Cluster) -> Tools:
    """Helm and kubectl of the cluster."""
    return Tools(cluster.env)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own where pods must be restricted."""
    with cluster.temporary_namespace("chart") as name:
        yield name


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Values of the chart: the defaults and what differs most from them."""
    return dict(request.param)
