"""Create a DLLMDeployment, wait until it is Ready, ask it a question, delete it. Exits 0 if it answers right.

Runs in a pod with the standard library only. The environment holds TEST_NAMESPACE, TEST_NAME (a prefix),
TEST_SPEC_FILE (the spec as JSON) and TEST_TIMEOUT_SECONDS; the API server's address and credentials are where
every pod has them.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CREDENTIALS = Path("/var/run/secrets/kubernetes.io/serviceaccount")
GROUP, VERSION, PLURAL = "serving.dllm.dev", "v1alpha1", "dllmdeployments"
QUESTION = "State the final answer to the following arithmetic problem: 917 + 585 + 321 ="
ANSWER = "1823"
CALL_TIMEOUT_SECONDS = 30
POLL_SECONDS = 1.0

Connect = Callable[[], http.client.HTTPConnection]


class CheckError(Exception):
    """Why the test failed; the message says what was asked for and what came."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The DLLMDeployments of one namespace, over the Kubernetes API."""

    connect: Connect
    namespace: str
    token_file: Path

    def create(self, name: str, spec: dict[str, Any]) -> None:
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "DLLMDeployment",
            "metadata": {"name": name},
            "spec": spec,
        }
        self._call("POST", "", body)

    def get(self, name: str) -> dict[str, Any]:
        return self._call("GET", f"/{name}")

    def delete(self, name: str) -> None:
        self._call("DELETE", f"/{name}")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        url = f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}{path}"
        bearer = {"Authorization": f"Bearer {self.token_file.read_text().strip()}"}
        status, answer = call(self.connect, method, url, body, bearer)
        if status >= 400:
            raise CheckError(f"{method} {url}: HTTP {status}: {answer.get('message', answer)}")
        return answer


def call(
    connect: Connect,
    method: str,
    url: str,
    body: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    """Status and JSON object of one request; ``OSError`` or ``HTTPException`` if there is no answer."""
    connection = connect()
    try:
        connection.request(
            method,
            url,
            json.dumps(body) if body else None,
            {"Content-Type": "application/json"} | (headers or {}),
        )
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    finally:
        connection.close()
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    return response.status, answer if isinstance(answer, dict) else {"message": text}


def conditions(resource: dict[str, Any]) -> dict[str, str]:
    """Condition types with their status, reason and message in one line each."""
    found = resource.get("status", {}).get("conditions", [])
    return {
        one["type"]: " ".join(filter(None, (one["status"], one.get("reason"), one.get("message"))))
        for one in found
    }


def is_ready(resource: dict[str, Any]) -> bool:
    found = resource.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in found)


def wait_until_ready(resources: Resources, name: str, deadline: float) -> None:
    shown: dict[str, str] = {}
    while True:
        resource = resources.get(name)
        now = conditions(resource)
        for kind, text in now.items():
            if shown.get(kind) != text:
                say(f"  {kind}: {text}")
        shown = now
        if is_ready(resource):
            return
        if time.monotonic() >= deadline:
            raise CheckError(
                f"{name} is not Ready in time: {shown or 'no conditions: does the operator run?'}"
            )
        time.sleep(POLL_SECONDS)


def ask(connect: Connect, deadline: float) -> str:
    """The answer's text. Until the deadline a Service that has no endpoint yet is asked again."""
    question = {"messages": [{"role": "user", "content": QUESTION}]}
    while True:
        try:
            status, answer = call(connect, "POST", "/v1/chat/completions", question)
        except (OSError, http.client.HTTPException) as error:
            status, answer = 503, {"message": repr(error)}
        if status == 200:
            return str(answer["choices"][0]["message"]["content"])
        if status != 503 or time.monotonic() >= deadline:
            raise CheckError(f"no answer to the question: HTTP {status}: {answer}")
        time.sleep(POLL_SECONDS)


def check(
    resources: Resources, name: str, spec: dict[str, Any], connect_service: Connect, timeout_seconds: float
) -> None:
    """The whole test of one resource, which is deleted whatever comes; raises ``CheckError``."""
    deadline = time.monotonic() + timeout_seconds
    say(f"create DLLMDeployment {resources.namespace}/{name}: {json.dumps(spec)}")
    resources.create(name, spec)
    try:
        wait_until_ready(resources, name, deadline)
        say(f"ask: {QUESTION}")
        text = ask(connect_service, deadline)
        say(f"answer: {text}")
        if ANSWER not in text:
            raise CheckError(f"the answer {text!r} does not contain {ANSWER}")
    finally:
        say(f"delete {name}")
        resources.delete(name)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the resource is deleted
    namespace = os.environ["TEST_NAMESPACE"]
    name = f"{os.environ['TEST_NAME']}-{secrets.token_hex(3)}"
    spec = json.loads(Path(os.environ["TEST_SPEC_FILE"]).read_text())
    port = spec.get("networking", {}).get("port", 8000)
    context = ssl.create_default_context(cafile=str(CREDENTIALS / "ca.crt"))

    def connect_api() -> http.client.HTTPConnection:
        host, api_port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
        return http.client.HTTPSConnection(host, api_port, timeout=CALL_TIMEOUT_SECONDS, context=context)

    def connect_service() -> http.client.HTTPConnection:
        return http.client.HTTPConnection(f"{name}.{namespace}.svc", port, timeout=CALL_TIMEOUT_SECONDS)

    try:
        check(
            Resources(connect_api, namespace, CREDENTIALS / "token"),
            name,
            spec,
            connect_service,
            float(os.environ["TEST_TIMEOUT_SECONDS"]),
        )
    except (CheckError, OSError, http.client.HTTPException) as error:
        say(f"failed: {error}")
        return 1
    say("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
