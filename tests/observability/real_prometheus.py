"""Debian's Prometheus with the chart's alerts, which scrapes what it is told to."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from tests.cluster.resources import eventually

SCRAPE_SECONDS = 1
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """``labels`` are those that a PodMonitor gives its targets; ``is_honest``: its own labels are kept."""

    address: str
    labels: Mapping[str, str]
    is_honest: bool = False


class RealPrometheus:
    """``with RealPrometheus(folder, rules, targets) as prometheus``: started, and killed at the end."""

    def __init__(self, folder: Path, rules: Path, targets: Sequence[Target]) -> None:
        jobs = [
            {
                "job_name": f"job-{number}",
                "honor_labels": target.is_honest,
                "static_configs": [{"targets": [target.address], "labels": dict(target.labels)}],
            }
            for number, target in enumerate(targets)
        ]
        every = f"{SCRAPE_SECONDS}s"
        settings = {"global": {"scrape_interval": every, "evaluation_interval": every}}
        config = folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump(settings | {"rule_files": [str(rules)], "scrape_configs": jobs}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [*command, f"--web.listen-address={address}"], stdout=self._log, stderr=self._log
        )
        self.http = httpx.Client(base_url=f"http://{address}", timeout=300)

    def __enter__(self) -> Self:
        eventually(self._is_ready, START_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        self._process.kill()
        self._process.wait()
        self._log.close()

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Series of an instant query; an error of Prometheus fails the test."""
        answer = self.http.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", f"{query}: {answer}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        groups = self.http.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _is_ready(self) -> None:
        assert self._process.poll() is None, Path(self._log.name).read_text()
        try:
            assert self.http.get("/-/ready").status_code == 200
        except httpx.TransportError as error:
            raise AssertionError(str(error)) from error
