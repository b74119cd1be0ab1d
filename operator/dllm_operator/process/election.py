"""Leadership by a Lease: one operator acts, the others wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import ClientError
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from dllm_operator.cluster.kinds import LEASE
from dllm_operator.cluster.kube import Kube, KubeError

log = structlog.get_logger(__name__)

LEASE_SECONDS = 15
RENEW_DEADLINE_SECONDS = 10
RETRY_SECONDS = 2
ANSWER_SECONDS = 2.5  # a read and a write begun at the renew deadline end before the lease does


class LeadershipLostError(Exception):
    """Another operator may lead now: this process must end."""


class Lock(LeaseLock):
    """The library's lock but for `create`, whose call its own client refuses (37.0.2: ``pretty=True`` is no
    text), and for an API server that cannot be reached or does not answer: that ends no election, the next
    period tries again.
    """

    def __init__(
        self, name: str, namespace: str, identity: str, kube: Kube, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        super().__init__(name, namespace, identity, kube.client)
        self._kube = kube
        self._answer_seconds = answer_seconds

    async def get(
        self, name: str, namespace: str
    ) -> tuple[bool, LeaderElectionRecord] | tuple[bool, Exception] | tuple[bool, None]:
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await super().get(name, namespace)
        except (OSError, ClientError) as error:
            log.warning("lease not read", lease=f"{namespace}/{name}", error=repr(error))
            return False, ApiException(reason=repr(error))

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await super().update(name, namespace, updated_record)
        except (OSError, ClientError) as error:
            log.warning("lease not renewed", lease=f"{namespace}/{name}", error=repr(error))
            return False

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        moment = self.time_str_to_iso(election_record.renew_time)
        lease = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "holderIdentity": election_record.holder_identity,
                "leaseDurationSeconds": LEASE_SECONDS,
                "acquireTime": moment,
                "renewTime": moment,
            },
        }
        try:
            await self._kube.create(LEASE, lease)
        except (KubeError, OSError) as error:
            log.warning("lease not created", lease=f"{namespace}/{name}", error=str(error))
            return False
        return True


async def lead(
    kube: Kube, name: str, namespace: str, identity: str, work: Callable[[], Awaitable[None]]
) -> None:
    """Wait for the Lease, then `work` while it is held; on the way out it is handed back.

    Raises ``LeadershipLostError`` when it could not be renewed in time.
    """
    lock = Lock(name, namespace, identity, kube)
    finished = asyncio.Event()
    outcome: list[BaseException] = []

    async def started() -> None:
        log.info("leading", lease=f"{namespace}/{name}", identity=identity)
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            outcome.append(error)
        finally:
            finished.set()

    async def stopped() -> None:
        """Nothing to do here: the loss shows in `run` ending before `work`."""

    config = Config(
        lock,
        lease_duration=LEASE_SECONDS,
        renew_deadline=RENEW_DEADLINE_SECONDS,
        retry_period=RETRY_SECONDS,
        onstarted_leading=started,
        onstopped_leading=stopped,
    )
    election = asyncio.create_task(LeaderElection(config).run())
    done = asyncio.create_task(finished.wait())
    try:
        await asyncio.wait({election, done}, return_when=asyncio.FIRST_COMPLETED)
        if outcome:
            raise outcome[0]
        if not done.done():
            election.result()
            raise LeadershipLostError(f"the lease {namespace}/{name} was not renewed in time")
    finally:
        for task in (election, done):
            task.cancel()
        await asyncio.gather(election, done, return_exceptions=True)
        await _hand_back(kube, name, namespace, identity)


async def _hand_back(kube: Kube, name: str, namespace: str, identity: str) -> None:
    """Clear the holder, so that a successor need not wait for the Lease to expire."""
    with contextlib.suppress(KubeError, OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            lease = await kube.get(LEASE, namespace, name)
            if lease is not None and lease["spec"].get("holderIdentity") == identity:
                lease["spec"]["holderIdentity"] = ""
                await kube.replace(LEASE, lease)
