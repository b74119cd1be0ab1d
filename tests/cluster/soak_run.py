"""The soak's events, done to a real cluster: to a pool under load, and to what stands beside it."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from dllm_operator.cluster.labels import INSTANCE
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from tests.cluster.cluster import Cluster, CommandError, Manifest
from tests.cluster.operator_pods import kill, leaders, metric, pod_names, stop
from tests.cluster.real_nodes import without_kubelet, without_power
from tests.cluster.resources import Fields, Objects, Serving, eventually
from tests.cluster.serving import make_client_pod
from tests.cluster.simulated_nodes import on_node
from tests.cluster.soak import Event, Happening, Request, Step

CLIENT, CLIENT_NODE = "soak-client", "node-0"  # a node that is never lost
REPLICAS = 2
PAUSE_SECONDS = 0.75
REACHED_SECONDS = 120.0
SETTLED_SECONDS = 600.0
KILL_SCRIPT = """
import contextlib, json, os, pathlib, signal, sys, time

def is_engine(folder):
    return b"dllm_server.engine.process" in (folder / "cmdline").read_bytes().split(b"\\0")

def is_server(folder):
    return (folder / "stat").read_text().rpartition(")")[2].split()[1] == "1"  # its parent is the init

def established():
    lines = [line.split() for name in ("tcp", "tcp6") for line in pathlib.Path("/proc/net", name).open()]
    return sum(words[1].endswith(":1F40") and words[3] == "01" for words in lines)

chosen = {"engine": is_engine, "server": is_server}[sys.argv[1]]
found = []
for each in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
        found += [int(each.name)] if chosen(each) else []
[victim] = found
os.kill(victim, signal.SIGSTOP)
moment, connections = time.time(), established()
os.kill(victim, signal.SIGKILL)
print(json.dumps([moment, connections]))
"""

Found = TypeVar("Found")
Kill = tuple[float, int | None]  # its moment, and the connections that the process had then, where counted


def reachable(act: Callable[[], Found]) -> Found:
    """An API server that cannot be asked is an assertion that may hold later."""
    try:
        return act()
    except (ApiException, HTTPError, OSError, CommandError) as error:
        if isinstance(error, ApiException) and error.status not in (404, 409, 429) and error.status < 500:
            raise
        raise AssertionError(f"{type(error).__name__}: {error}") from error


def persist(act: Callable[[], Found], seconds: float = REACHED_SECONDS) -> Found:
    return eventually(lambda: reachable(act), seconds)


class LoadPod:
    """The client, in the namespace of ``objects``."""

    def __init__(self, cluster: Cluster, objects: Objects, image: str, host: str) -> None:
        self._cluster, self._namespace = cluster, str(objects.namespace)
        pod = make_client_pod(image, CLIENT)
        script = Path(__file__).with_name("soak_client.py").read_text()
        pod["spec"]["containers"][0]["command"] = [
            *("/opt/dllm/bin/python", "-c", script, host, "8000", str(PAUSE_SECONDS))
        ]
        pod["spec"] |= {"restartPolicy": "Never", "nodeSelector": {"kubernetes.io/hostname": CLIENT_NODE}}
        objects.create(pod)

    def requests(self) -> list[Request]:
        """Those that have ended."""
        lines = self._cluster.kubectl("logs", CLIENT, "-n", self._namespace).splitlines()
        return [Request.parse(line) for line in lines]

    def wait(self, more: int) -> None:
        """Until so many more requests have ended."""
        enough = len(persist(self.requests)) + more
        self._cluster.wait_for(f"{enough} requests", lambda: len(self.requests()) >= enough, REACHED_SECONDS)

    def stop(self) -> list[Request]:
        """All requests, after the last has ended."""
        command = ("exec", CLIENT, "-n", self._namespace, "--", "/opt/dllm/bin/python", "-c")
        self._cluster.kubectl(*command, "import os; os.kill(1, 15)")

        def is_over() -> bool:
            pod = self._cluster.get("pod", CLIENT, self._namespace) or {}
            return pod.get("status", {}).get("phase") == "Succeeded"

        self._cluster.wait_for("the client has ended", is_over, SETTLED_SECONDS)
        return self.requests()


@dataclass
class Record:
    """What has happened so far, and the lock of those who need the API server throughout."""

    happenings: list[Happening] = field(default_factory=list)
    api_server: threading.Lock = field(default_factory=threading.Lock)


class Lane:
    """Does one step after the other, each from its beginning until things are in order again."""

    def __init__(self, cluster: Cluster, objects: Objects, record: Record) -> None:
        self.cluster, self.objects, self.record = cluster, objects, record
        self.acts: Mapping[Event, Callable[[Step], Kill | None]] = {}

    def run(self, steps: Iterable[Step], until: float) -> None:
        """Until that moment, and until the event then under way is over."""
        for step in steps:
            time.sleep(step.pause_seconds)
            if time.time() >= until:
                return
            began = time.time()
            done, connections = self.acts[step.event](step) or (time.time(), None)
            self.settle()
            self.record.happenings.append(Happening(step.event, began, done, time.time(), connections))

    def settle(self) -> None:
        """Nothing to wait for."""


class PoolUnderLoad(Lane):
    def __init__(self, cluster: Cluster, serving: Serving, record: Record) -> None:
        super().__init__(cluster, serving.objects, record)
        self._serving, self._edits, self._replicas = serving, 0, REPLICAS
        self.acts = {
            Event.ROLL: self._roll,
            Event.SCALE: self._scale,
            Event.DELETE_POD: lambda step: self._delete(step, None),
            Event.DELETE_BY_FORCE: lambda step: self._delete(step, 0),
            Event.DRAIN_NODE: self._drain,
            Event.KILL_ENGINE: lambda step: self._kill(step, "engine"),
            Event.KILL_SERVER: lambda step: self._kill(step, "server"),
            Event.STOP_KUBELET: self._stop_kubelet,
            Event.CUT_POWER: self._cut_power,
        }

    def settle(self) -> None:
        """Ready, with as many pods as wanted and none on its way out."""

        def check() -> None:
            self._serving.wait_ready(0.0)
            pods = self._pods()
            assert len(pods) == self._replicas, [pod["metadata"]["name"] for pod in pods]
            assert all(is_ready(pod) for pod in pods)

        persist(check, SETTLED_SECONDS)

    def _pods(self) -> list[Manifest]:
        """Those on their way out as well."""
        return self.objects.list("Pod", f"{INSTANCE}={self._serving.name}")

    def _pod(self, step: Step) -> Manifest:
        return step.pick(sorted(persist(self._pods), key=lambda pod: str(pod["metadata"]["name"])))

    def _roll(self, step: Step) -> None:
        self._edits += 1
        persist(lambda: self._serving.edit({"engine": {"maxNumSeqs": 8 - self._edits % 2}}))

    def _scale(self, step: Step) -> None:
        self._replicas = 2 * REPLICAS + 1 - self._replicas
        persist(lambda: self._serving.edit({"replicas": self._replicas}))

    def _delete(self, step: Step, grace_seconds: int | None) -> None:
        name = self._pod(step)["metadata"]["name"]
        persist(lambda: self.objects.delete("Pod", name, grace_seconds))

    def _drain(self, step: Step) -> None:
        node = self._pod(step)["spec"]["nodeName"]
        flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s")
        chosen = f"--pod-selector={INSTANCE}={self._serving.name}"
        try:
            persist(lambda: self.cluster.kubectl("drain", node, chosen, *flags), SETTLED_SECONDS)
        finally:
            persist(lambda: self.cluster.kubectl("uncordon", node))

    def _kill(self, step: Step, process: str) -> Kill:
        name = self._pod(step)["metadata"]["name"]

        def restarts() -> int:
            [container] = self.objects.get("Pod", name)["status"]["containerStatuses"]
            return int(container["restartCount"])

        def check() -> None:
            assert restarts() > before

        with self.record.api_server:
            before = persist(restarts)
            python = (
                "exec",
                "-i",
                name,
                "-n",
                str(self.objects.namespace),
                "--",
                "/opt/dllm/bin/python",
                "-",
            )
            moment, connections = json.loads(self.cluster.kubectl(*python, process, stdin=KILL_SCRIPT))
        persist(check)
        return float(moment), int(connections)

    def _stop_kubelet(self, step: Step) -> None:
        with without_kubelet(self.cluster, self._node(step)):
            time.sleep(step.outage_seconds)

    def _cut_power(self, step: Step) -> Kill:
        with without_power(self.cluster, self._node(step)):
            moment = time.time()
            time.sleep(step.outage_seconds)
        return moment, None

    def _node(self, step: Step) -> str:
        """One that has a pod, but for the client's."""
        nodes = {pod["spec"]["nodeName"] for pod in persist(self._pods)} - {CLIENT_NODE}
        return str(step.pick(sorted(nodes or {"node-1"})))


def is_ready(pod: Manifest) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


SHARED = (
    "ConfigMap",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "ServiceAccount",
)  # deleted at no request's cost
CACHED: Fields = {"model": {"source": "example/model", "cache": {"size": "1Gi"}}}  # its claim is never bound
VARIANTS: tuple[Fields, ...] = ({}, {"gpuPools": [{"name": "left"}, {"name": "right"}]}, CACHED)
EDITS: tuple[Fields, ...] = (
    {"replicas": 0},
    {"replicas": 2},
    {"replicas": 3},
    {"engine": {"maxNumSeqs": 4}},
    {"engine": {"maxNumSeqs": 8}},
    {"image": "example.local/other:1"},
    {"image": None},
    {"podTemplate": {"annotations": {"edit": "1"}}},
    {"rollout": {"pause": True}},
    {"rollout": {"pause": False}},
)


class Neighbourhood(Lane):
    """Resources on a simulated node, the operators, and the control plane."""

    def __init__(self, cluster: Cluster, serving: Serving, record: Record, node: str) -> None:
        super().__init__(cluster, serving.objects, record)
        self._serving, self._made, self.internal_errors = serving, 0, 0.0
        self._base: Fields = {"device": "cpu", "podTemplate": on_node(node)}
        self.resources: list[Serving] = []
        self.acts = {
            Event.MAKE: self._make,
            Event.EDIT: self._edit,
            Event.REMOVE: self._remove,
            Event.DAMAGE: lambda step: self._damage(step, self._resource(step)),
            Event.DAMAGE_SERVING: lambda step: self._damage(step, self._serving, SHARED),
            Event.STOP_LEADER: lambda step: self._end_operators(leaders, stop),
            Event.KILL_LEADER: lambda step: self._end_operators(leaders, kill),
            Event.KILL_OPERATORS: lambda step: self._end_operators(pod_names, kill),
            Event.KILL_API_SERVER: lambda step: self._outage(step, "apiserver"),
            Event.KILL_ETCD: lambda step: self._outage(step, "etcd"),
        }

    def _make(self, step: Step) -> None:
        self._made += 1
        name, variant = f"beside-{self._made}", step.pick(VARIANTS)

        def create() -> Serving:
            if self.objects.find("DLLMDeployment", name) is not None:
                return Serving(self.objects, name)  # made, but not told so
            return Serving.create(self.objects, name, self._base, variant)

        self.resources.append(persist(create))

    def _resource(self, step: Step) -> Serving:
        if not self.resources:
            self._make(step)
        return step.pick(self.resources)

    def _edit(self, step: Step) -> None:
        resource = self._resource(step)
        change = random.Random(step.choice).choice(EDITS)
        persist(lambda: resource.edit(change))

    def _remove(self, step: Step) -> None:
        resource = self._resource(step)
        persist(resource.delete)
        self.resources.remove(resource)

    def _damage(self, step: Step, resource: Serving, kinds: tuple[str, ...] = ()) -> None:
        children = sorted(each for each in persist(resource.children) if not kinds or each[0] in kinds)
        if children:  # else they are still being made
            kind, name = random.Random(step.choice).choice(children)
            persist(lambda: self.objects.delete(kind, name))

    def _end_operators(
        self, chosen: Callable[[Cluster], list[str]], end: Callable[[Cluster, str], None]
    ) -> None:
        def some() -> list[str]:
            names = chosen(self.cluster)
            assert names, "no operator"
            return names

        for name in persist(some):
            self.internal_errors += internal_errors(self.cluster, name)
            persist(partial(end, self.cluster, name))

    def _outage(self, step: Step, process: str) -> None:
        with self.record.api_server:
            self.cluster.control("kill", process)
            try:
                time.sleep(step.outage_seconds)
            finally:
                self.cluster.control("start", process)
            persist(lambda: self.cluster.raw("/readyz"))


def internal_errors(cluster: Cluster, pod: str) -> float:
    """That it counted; none for one that does not answer."""
    try:
        return metric(cluster, pod, "dllm_operator_internal_errors_total")
    except CommandError:
        return 0.0
