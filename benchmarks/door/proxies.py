"""The proxies that are compared, each with the settings that come nearest to one queue."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from dllm_operator.planning.door import SPARE
from dllm_operator.render.door_config import Door, DoorPool, door_config

from benchmarks.door.engine import EngineSize

QUEUE = 256
START_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Proxy:
    """``signals`` (of a reload, of a soft stop) are None where it has none."""

    name: str
    port: int
    command: Sequence[str]
    reload: signal.Signals | None = None
    children: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def haproxy(engines: Sequence[EngineSize], port: int, folder: Path, share: float = 1.0) -> Proxy | None:
    """The configuration that the operator renders; each of several doors has its ``share`` of the seats."""
    binary = shutil.which("haproxy")
    if binary is None:
        return None
    pools = [
        DoorPool(f"e{engine.port}", "127.0.0.1", engine.port, math.ceil(engine.seats * share) + SPARE)
        for engine in engines
    ]
    config = folder / f"haproxy-{port}.cfg"
    config.write_text(door_config(Door(port, port + 1, QUEUE, 120, pools)))
    return Proxy("haproxy", port, [binary, "-W", "-db", "-f", str(config)], signal.SIGUSR2, children=True)


def envoy(engines: Sequence[EngineSize], port: int, folder: Path) -> Proxy | None:
    binary = shutil.which("envoy")
    if binary is None:
        return None
    config = folder / "envoy.json"
    config.write_text(json.dumps(_envoy_config(engines, port)))
    command = [
        binary,
        "-c",
        str(config),
        "--concurrency",
        "2",
        "--log-level",
        "error",
        "--use-dynamic-base-id",
    ]
    return Proxy("envoy", port, command)


def smg(engines: Sequence[EngineSize], port: int, _: Path) -> Proxy | None:
    binary = shutil.which("smg")
    if binary is None:
        return None
    command = [
        binary,
        "launch",
        *_router_arguments(engines, port),
        "--power-of-two-load-metric",
        "least_requests",
    ]
    command += ["--backend", "vllm", "--log-level", "error", "--disable-tokenizer-autoload"]
    return Proxy("smg", port, command)


def vllm_router(engines: Sequence[EngineSize], port: int, _: Path) -> Proxy | None:
    binary = shutil.which("vllm-router")
    if binary is None:
        return None
    return Proxy("vllm-router", port, [binary, *_router_arguments(engines, port), "--log-level", "error"])


def _router_arguments(engines: Sequence[EngineSize], port: int) -> list[str]:
    seats = sum(engine.seats for engine in engines)
    return [
        *("--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(port + 1)),
        *("--worker-urls", *(f"http://127.0.0.1:{engine.port}" for engine in engines)),
        *("--policy", "power_of_two", "--max-concurrent-requests", str(seats)),
        *("--queue-size", str(QUEUE), "--queue-timeout-secs", "120"),
        *("--rate-limit-tokens-per-second", "100000"),
    ]


def _envoy_config(engines: Sequence[EngineSize], port: int) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions."
    router = {"name": "router", "typed_config": {"@type": kind + "filters.http.router.v3.Router"}}
    manager = {
        "@type": kind + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "door",
        "http_filters": [router],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "door",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "engines", "timeout": "0s"}}],
                }
            ]
        },
    }
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": engine.port}}}}
        for engine in engines
    ]
    cluster = {
        "name": "engines",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "least_request_lb_config": {"choice_count": 10},
        "load_assignment": {"cluster_name": "engines", "endpoints": [{"lb_endpoints": endpoints}]},
        "circuit_breakers": {
            "thresholds": [{"max_connections": 1024, "max_pending_requests": QUEUE, "max_requests": 1024}]
        },
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/ready"},
            }
        ],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


class Running:
    """A proxy's process while it is entered."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.url = f"http://127.0.0.1:{proxy.port}"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Running:
        self._process = await asyncio.create_subprocess_exec(
            *self.proxy.command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            await until_served(f"{self.url}/v1/models")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("not started")
        self._process.send_signal(number)

    def resident_mib(self) -> float:
        """Of the process and its children."""
        if self._process is None:
            raise RuntimeError("not started")
        return sum(_resident_mib(pid) for pid in _family(self._process.pid))


async def until_served(url: str) -> None:
    """Until it answers 200."""
    ends = time.monotonic() + START_SECONDS
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
        while time.monotonic() < ends:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{url} was not served within {START_SECONDS:g} s")


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(descendant for child in children for descendant in _family(int(child)))]


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024
