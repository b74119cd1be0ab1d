"""DLLMDeployments for the tests, what the operator made of them, and a client inside the cluster."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.cluster import Cluster, Manifest

RESOURCE = "dllmdeployments.serving.dllm.dev"
CHILD_KINDS = ",".join(
    (
        "deployments",
        "configmaps",
        "services",
        "serviceaccounts",
        "poddisruptionbudgets",
        "networkpolicies",
        "persistentvolumeclaims",
    )
)
QUESTION = "State the final answer to the following arithmetic problem: 917 + 585 + 321 ="
ANSWER = "1823"
ENDPOINT_SECONDS = 60.0
SMALL = {
    "engine": {"kvPoolBytes": "128MiB", "maxNumSeqs": 8},
    "podTemplate": {"resources": {"requests": {"cpu": "50m", "memory": "512Mi"}}},
}


def make_resource(name: str, **spec: Any) -> Manifest:
    """The embedded model on a CPU, as cheap as it gets; fields of ``spec`` replace these."""
    return {
        "apiVersion": "serving.dllm.dev/v1alpha1",
        "kind": "DLLMDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"source": "embedded"}, "device": "cpu"} | SMALL | spec,
    }


def condition(cluster: Cluster, namespace: str, name: str, kind: str) -> dict[str, Any]:
    """A condition of the resource as it is now; empty before there is one."""
    live = cluster.get(RESOURCE, name, namespace) or {}
    found = [c for c in live.get("status", {}).get("conditions", ()) if c["type"] == kind]
    return found[0] if found else {}


def wait_ready(cluster: Cluster, namespace: str, name: str, timeout_seconds: float = 120.0) -> Manifest:
    """Ready, settled, and about the newest generation."""

    def look() -> Manifest | None:
        live = cluster.get(RESOURCE, name, namespace)
        if live is None or live.get("status", {}).get("observedGeneration") != live["metadata"]["generation"]:
            return None
        states = {c["type"]: c["status"] for c in live["status"]["conditions"]}
        return live if states["Ready"] == "True" and states["Progressing"] == "False" else None

    return cluster.wait_for(f"{name} is Ready and settled", look, timeout_seconds)


def wait_reason(
    cluster: Cluster, namespace: str, name: str, kind: str, reason: str, timeout_seconds: float = 90.0
) -> dict[str, Any]:
    """The condition once it has that reason."""

    def look() -> dict[str, Any] | None:
        now = condition(cluster, namespace, name, kind)
        return now if now.get("reason") == reason else None

    return cluster.wait_for(f"condition {kind} of {name} says {reason}", look, timeout_seconds)


def children(cluster: Cluster, namespace: str, name: str) -> list[str]:
    """`kind/name` of every child."""
    selector = f"app.kubernetes.io/instance={name},app.kubernetes.io/managed-by=dllm-operator"
    found = cluster.list(CHILD_KINDS, namespace, selector)
    return sorted(f"{body['kind']}/{body['metadata']['name']}" for body in found)


def environment(deployment: Manifest) -> dict[str, str]:
    """The engine container's plain variables."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {item["name"]: item["value"] for item in container["env"] if "value" in item}


def make_client_pod(image: str, name: str = "client") -> Manifest:
    """A pod that sleeps, with Python for scripts; under the restricted profile."""
    container = {
        "name": "client",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/opt/dllm/bin/python", "-c", "import signal; signal.sigwait([signal.SIGTERM])"],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "containers": [container],
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


class InClusterClient:
    """Runs Python in a pod of the namespace."""

    def __init__(self, cluster: Cluster, namespace: str, image: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        cluster.apply(make_client_pod(image), namespace)
        cluster.kubectl("wait", "pod/client", "-n", namespace, "--for=condition=Ready", "--timeout=90s")

    def python(self, code: str) -> str:
        command = ("exec", "-i", "client", "-n", self._namespace, "--", "/opt/dllm/bin/python", "-")
        return self._cluster.kubectl(*command, stdin=code)

    def ask(self, url: str, question: str = QUESTION) -> str:
        """The answer to a chat request."""
        body = {"messages": [{"role": "user", "content": question}]}
        answer = self.post(f"{url}/v1/chat/completions", body)
        return str(answer["choices"][0]["message"]["content"]).strip()

    def post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer. Nodes learn of a Service's endpoints a little after its pods are ready: until then
        connections are refused."""
        said = self.python(
            "import json, time, urllib.error, urllib.request\n"
            f"request = urllib.request.Request({url!r}, {json.dumps(body)!r}.encode(),\n"
            "    {'Content-Type': 'application/json'})\n"
            f"until = time.monotonic() + {ENDPOINT_SECONDS}\n"
            "while True:\n"
            "    try:\n"
            "        answer = urllib.request.urlopen(request, timeout=60).read().decode()\n"
            "        break\n"
            "    except urllib.error.URLError as error:\n"
            "        is_early = isinstance(error.reason, ConnectionRefusedError)\n"
            "        if not is_early or time.monotonic() > until:\n"
            "            raise\n"
            "        time.sleep(0.5)\n"
            "print(answer)\n"
        )
        answer: dict[str, Any] = json.loads(said)
        return answer
