"""The tuning of every pool, between the tuner that decides and the reconcile that writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dllm_operator.cluster.resource import Resource
from dllm_operator.tuning.record import PoolTuning, parse_tuning


class TuningBook:
    """By resource (uid) and pool. A resource that is not in it yet is read from its status."""

    def __init__(self) -> None:
        self._pages: dict[str, dict[str, PoolTuning]] = {}

    def of(self, resource: Resource) -> Mapping[str, PoolTuning]:
        page = self._pages.get(resource.uid)
        if page is None:
            page = self._pages[resource.uid] = _from_status(resource.status)
        return dict(page)

    def put(self, resource: Resource, pool: str, tuning: PoolTuning) -> None:
        self.of(resource)
        self._pages[resource.uid][pool] = tuning

    def keep(self, uids: set[str]) -> None:
        """Forget resources that are gone."""
        for uid in self._pages.keys() - uids:
            del self._pages[uid]


def _from_status(status: Mapping[str, Any]) -> dict[str, PoolTuning]:
    found = {pool["name"]: parse_tuning(pool.get("tuning")) for pool in status.get("pools", ())}
    return {name: tuning for name, tuning in found.items() if tuning is not None}
