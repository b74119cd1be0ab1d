"""A Kubernetes cluster as the tests use it: kubectl, helm, images, nodes, and waiting with a deadline."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.3
KIND = "dllm-serve-test"
TEMPORARY_LABEL = "tests.dllm.dev/temporary"  # of what a run that is cut short would leave behind

Value = TypeVar("Value")
Manifest = dict[str, Any]


class CommandError(Exception):
    """A command failed; the message holds what it printed."""


def run(command: list[str], env: dict[str, str], *, stdin: str | None = None, timeout: float = 300.0) -> str:
    done = subprocess.run(
        command, env=env, input=stdin, text=True, capture_output=True, timeout=timeout, cwd=ROOT
    )
    if done.returncode:
        raise CommandError(f"{shlex.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass
class Cluster:
    """``program`` is the one that the variable CLUSTER names, where there is one."""

    env: dict[str, str]
    program: list[str] | None = None
    is_kind: bool = False
    _nodes: list[str] = field(default_factory=list)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return run(["kubectl", *arguments], self.env, stdin=stdin)

    def helm(self, *arguments: str, timeout: float = 300.0) -> str:
        return run(["helm", *arguments], self.env, timeout=timeout)

    def control(self, *arguments: str, timeout: float = 600.0) -> str:
        """A verb of the CLUSTER program."""
        assert self.program is not None, "this needs the program that the variable CLUSTER names"
        return run([*self.program, *arguments], self.env, timeout=timeout)

    def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """The live object, or None."""
        scope = ["-n", namespace] if namespace else []
        text = self.kubectl("get", kind, name, *scope, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Manifest]:
        scope = ["-n", namespace] if namespace else ["-A"]
        return json.loads(self.kubectl("get", kind, *scope, "-l", selector, "-o", "json"))["items"]

    def apply(self, manifest: Manifest | str, namespace: str | None = None) -> None:
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        self.kubectl("apply", *(["-n", namespace] if namespace else []), "-f", "-", stdin=text)

    def patch(self, kind: str, name: str, namespace: str, change: Manifest, *flags: str) -> None:
        self.kubectl("patch", kind, name, "-n", namespace, "--type=merge", "-p", json.dumps(change), *flags)

    def wait_for(self, what: str, look: Callable[[], Value | None], timeout_seconds: float = 60.0) -> Value:
        """The first true value of ``look``; the failure shows the last one."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                value, error = look(), None
            except CommandError as failed:
                value, error = None, failed
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"after {timeout_seconds:.0f} s: {what}; last: {error or value!r}")
            time.sleep(POLL_SECONDS)

    @contextmanager
    def temporary_namespace(self, prefix: str) -> Iterator[str]:
        """Its name; pods in it must be restricted, and it goes with all that is in it."""
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted", TEMPORARY_LABEL: "true"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")

    def load_command(self) -> str:
        """What brings an image that was built here to the nodes, before its name: a pod may come to any."""
        if self.is_kind:
            return f"kind load docker-image --name {KIND}"
        return f"{shlex.join(self.program)} load" if self.program is not None else "docker push"

    def load(self, image: str) -> None:
        run([*shlex.split(self.load_command()), image], self.env, timeout=900)

    def raw(self, path: str) -> str:
        return self.kubectl("get", "--raw", path)

    def audit_log(self) -> Path:
        """Every request of the API server as JSON lines, where the CLUSTER program keeps them."""
        folder = self.env.get("DLLM_CLUSTER_DIR") or Path(self.env["KUBECONFIG"]).parent
        return Path(folder) / "log/audit.log"


def find_cluster() -> tuple[Cluster, Callable[[], None]] | None:
    """The current KUBECONFIG's, one that the CLUSTER program starts, or kind's; and what gives it back."""
    env = dict(os.environ)
    named = shlex.split(env["CLUSTER"]) if env.get("CLUSTER") else None
    program = [str((ROOT / named[0]).resolve()), *named[1:]] if named else None
    if env.get("KUBECONFIG"):
        return Cluster(env, program), _nothing
    if program is not None:
        was_up = _is_up(program, env)
        run([*program, "up"], env, timeout=600)
        cluster = Cluster(_with_exports(program, env), program)
        return cluster, _nothing if was_up else lambda: _stop(program, env)
    if shutil.which("kind") and shutil.which("kubectl") and shutil.which("helm"):
        kubeconfig = ROOT / "build" / "kind.kubeconfig"
        env["KUBECONFIG"] = str(kubeconfig)
        run(["kind", "create", "cluster", "--name", KIND, "--kubeconfig", str(kubeconfig)], env, timeout=600)
        return Cluster(env, is_kind=True), lambda: _delete_kind(env)
    return None


def _with_exports(program: list[str], env: dict[str, str]) -> dict[str, str]:
    """The environment after `eval "$(CLUSTER env)"`."""
    script = f'eval "$({shlex.join(program)} env)"; env -0'
    text = run(["bash", "-c", script], env)
    return dict(item.split("=", 1) for item in text.split("\0") if "=" in item)


def _is_up(program: list[str], env: dict[str, str]) -> bool:
    try:
        run(["kubectl", "get", "--raw", "/readyz"], _with_exports(program, env), timeout=20)
    except (CommandError, OSError, subprocess.TimeoutExpired):
        return False
    return True


def _stop(program: list[str], env: dict[str, str]) -> None:
    run([*program, "down"], env, timeout=900)


def _delete_kind(env: dict[str, str]) -> None:
    run(["kind", "delete", "cluster", "--name", KIND], env, timeout=300)


def _nothing() -> None:
    """A cluster that was there before stays."""
