"""The operator's HTTP port: /healthz, /readyz, /metrics."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

STALLED_SECONDS = 120.0  # a lag this old is no lag but a dead watch
AUDIT_MISSED_SECONDS = 300.0


@dataclass(slots=True)
class Health:
    """What the probes ask. A standby is healthy; a leader must have watches that keep up."""

    is_leading: bool = False
    led_since: float = 0.0
    stalled_seconds: float = 0.0
    audited_at: float | None = None

    def problem(self, now: float) -> str | None:
        """Why the process should be restarted; `now` in monotonic seconds."""
        if not self.is_leading:
            return None
        if self.stalled_seconds > STALLED_SECONDS:
            return f"watch stalled: the view has lagged for {self.stalled_seconds:.0f} s"
        last = self.audited_at if self.audited_at is not None else self.led_since
        if now - last > AUDIT_MISSED_SECONDS:
            return f"no look at the API server for {now - last:.0f} s"
        return None


@asynccontextmanager
async def serve_health(port: int, health: Health, metrics: Callable[[], bytes]) -> AsyncIterator[int]:
    """While entered; yields the port (port 0 picks a free one)."""

    async def healthz(_: web.Request) -> web.Response:
        problem = health.problem(time.monotonic())
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="leading" if health.is_leading else "standby")

    async def render(_: web.Request) -> web.Response:
        return web.Response(
            body=metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", render)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, port=port)
        await site.start()
        # With port 0, IPv4 and IPv6 get a port each; IPv4's address is the shorter tuple.
        yield int(min(runner.addresses, key=len)[1])
    finally:
        await runner.cleanup()
