"""The serving pods of a DLLMDeployment, reached through kubectl: whoever may use that may look."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dllm_server.cli.engine_view import Seen
from dllm_server.cli.top import Server

SELECTOR = "app.kubernetes.io/instance={name},app.kubernetes.io/managed-by=dllm-operator"
PORT_NAME = "http"
LISTED_SECONDS = 5.0  # between two looks for pods that have come or gone
FORWARD_SECONDS = 20.0
_LISTENING = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+)")


class KubectlError(ValueError):
    """kubectl is not there, or refuses."""


@dataclass(frozen=True, slots=True)
class Pod:
    """``port`` is None where it does not run, and ``state`` says what it does."""

    name: str
    port: int | None
    state: str


def pods_of(listing: Mapping[str, Any]) -> list[Pod]:
    """The serving pods of a list that kubectl printed, by name."""
    found = []
    for item in listing.get("items", ()):
        ports = [
            port["containerPort"]
            for container in item["spec"]["containers"]
            for port in container.get("ports", ())
            if port.get("name") == PORT_NAME
        ]
        if not ports:
            continue
        meta, phase = item["metadata"], item.get("status", {}).get("phase", "Unknown")
        state = "Terminating" if "deletionTimestamp" in meta else phase
        found.append(Pod(meta["name"], ports[0] if state == "Running" else None, state))
    return sorted(found, key=lambda pod: pod.name)


class Pods:
    """A ``kubectl port-forward`` for each pod that runs; all end with this."""

    def __init__(self, namespace: str | None, name: str) -> None:
        self._name = name
        self._where = ["--namespace", namespace] if namespace else []
        self._pods: list[Pod] = []
        self._problems: list[Seen] = []
        self._listed = -LISTED_SECONDS
        self._forwards: dict[str, tuple[asyncio.subprocess.Process, int]] = {}

    async def __aenter__(self) -> Pods:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.gather(*(self._end(name) for name in list(self._forwards)))

    async def servers(self) -> list[Server | Seen]:
        if time.monotonic() - self._listed >= LISTED_SECONDS:
            await self._look_for_pods()
        running = {pod.name for pod in self._pods if pod.port is not None}
        over = [
            name
            for name, (process, _) in self._forwards.items()
            if process.returncode is not None or name not in running
        ]
        await asyncio.gather(*(self._end(name) for name in over))
        servers = await asyncio.gather(*(self._server(pod) for pod in self._pods))
        return [*servers, *self._problems]

    async def _server(self, pod: Pod) -> Server | Seen:
        if pod.port is None:
            return Seen(pod.name, problem=pod.state)
        try:
            port = await self._forward(pod.name, pod.port)
        except KubectlError as error:
            return Seen(pod.name, problem=str(error))
        return Server(pod.name, f"http://127.0.0.1:{port}", f"127.0.0.1:{port}")

    async def _look_for_pods(self) -> None:
        """Those of before stay where kubectl cannot tell, and it is said."""
        self._listed, self._problems = time.monotonic(), []
        try:
            self._pods = await self._list()
        except KubectlError as error:
            if not self._pods:
                raise
            self._problems = [Seen("pods", problem=str(error))]

    async def _list(self) -> list[Pod]:
        selector = SELECTOR.format(name=self._name)
        process = await _start("get", "pods", *self._where, "--selector", selector, "--output", "json")
        output, problem = await process.communicate()
        if process.returncode:
            raise KubectlError(f"kubectl get pods: {_last_line(problem)}")
        pods = pods_of(json.loads(output))
        if not pods:
            raise KubectlError(f"no pods of a DLLMDeployment {self._name}: is it in another --namespace?")
        return pods

    async def _forward(self, name: str, port: int) -> int:
        """The local port, of a forward that runs or is started."""
        if name in self._forwards:
            return self._forwards[name][1]
        process = await _start("port-forward", *self._where, f"pod/{name}", f":{port}")
        listening = None
        try:
            async with asyncio.timeout(FORWARD_SECONDS):
                listening = await _first_port(process)
        except TimeoutError:
            raise KubectlError("kubectl port-forward says nothing") from None
        finally:
            if listening is None:
                await _kill(process)
        if listening is None:
            _, problem = await process.communicate()
            raise KubectlError(f"kubectl port-forward: {_last_line(problem)}")
        self._forwards[name] = process, listening
        return listening

    async def _end(self, name: str) -> None:
        await _kill(self._forwards.pop(name)[0])


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            "kubectl",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise KubectlError("kubectl is not on the PATH: pods are reached through it") from error


async def _first_port(process: asyncio.subprocess.Process) -> int | None:
    """Where it listens, as its first line says; None where that says something else."""
    line = b"" if process.stdout is None else await process.stdout.readline()
    listening = _LISTENING.match(line)
    return int(listening[1]) if listening else None


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "ended without a word"
