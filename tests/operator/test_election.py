from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from dllm_operator.cluster.kube import Kube
from dllm_operator.process.election import Lock
from kubernetes.aio.client import ApiClient, Configuration, V1Lease, V1LeaseSpec
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord

MOMENT = "2026-01-01 00:00:00.000000"
RECORD = LeaderElectionRecord("operator-0", "15", MOMENT, MOMENT)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def nothing() -> None:
    """Leading is not what is tested."""


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(1024):
            pass
    writer.close()


@asynccontextmanager
async def lock_on(serve: Serve | None) -> AsyncIterator[Lock]:
    """A lock at a server that treats each connection so; without one, nothing listens."""
    server = await asyncio.start_server(serve or hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if serve is None:
        server.close()
        await server.wait_closed()
    kube = Kube(ApiClient(Configuration(host=f"http://127.0.0.1:{port}")))
    lock = Lock("dllm-operator", "dllm-system", "operator-0", kube, answer_seconds=0.2)
    lock.lease_reference = V1Lease(spec=V1LeaseSpec())
    try:
        yield lock
    finally:
        await kube.close()
        server.close()


@pytest.mark.parametrize("serve", [None, hang_up, keep_silent], ids=["refuses", "hangs up", "keeps silent"])
def test_an_api_server_that_cannot_be_reached_ends_no_election(serve: Serve | None) -> None:
    async def scenario() -> None:
        async with lock_on(serve) as lock:
            election = LeaderElection(Config(lock, 15, 10, 2, nothing, nothing))
            assert not await election.try_acquire_or_renew()
            assert not await lock.update("dllm-operator", "dllm-system", RECORD)
            if serve is not keep_silent:
                assert not await lock.create("dllm-operator", "dllm-system", RECORD)

    asyncio.run(scenario())
