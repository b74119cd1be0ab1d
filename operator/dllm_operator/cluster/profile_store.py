"""The learned profiles in one ConfigMap of the operator's namespace. Only the leader writes it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

import structlog

from dllm_operator.cluster.kinds import BY_KIND
from dllm_operator.cluster.kube import Kube, KubeError
from dllm_operator.tuning.profile import (
    Profile,
    ProfileKey,
    dump_profiles,
    is_news,
    make_profile,
    parse_profiles,
)
from dllm_operator.tuning.record import PoolTuning

log = structlog.get_logger(__name__)

PROFILES_MANAGER = "dllm-operator-profiles"


class ProfileStore:
    """In memory, and written through when something is worth keeping."""

    def __init__(self, kube: Kube, namespace: str, name: str) -> None:
        self._kube, self._namespace, self._name = kube, namespace, name
        self._known: dict[str, Profile] = {}

    @property
    def known(self) -> Mapping[str, Profile]:
        return MappingProxyType(self._known)

    async def load(self) -> None:
        """Without the ConfigMap, or the right to read it, nothing is known."""
        try:
            body = await self._kube.get(BY_KIND["ConfigMap"], self._namespace, self._name)
        except (KubeError, OSError, TimeoutError) as error:
            log.warning("learned profiles not read", name=f"{self._namespace}/{self._name}", error=str(error))
            return
        self._known = parse_profiles((body or {}).get("data") or {}) | self._known
        log.info("learned profiles read", profiles=len(self._known))

    async def learn(self, key: ProfileKey, tuning: PoolTuning, now: datetime) -> None:
        """Keep what is news of the tuning; a write that fails is made up for by the next."""
        if not is_news(self._known.get(key.digest), tuning):
            return
        self._known[key.digest] = make_profile(key, tuning, now)
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "data": dump_profiles(self._known),
        }
        try:
            await self._kube.apply(BY_KIND["ConfigMap"], manifest, field_manager=PROFILES_MANAGER)
        except (KubeError, OSError, TimeoutError) as error:
            log.warning("learned profiles not written", error=str(error))
