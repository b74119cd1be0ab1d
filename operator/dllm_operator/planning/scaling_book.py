"""How every resource is scaled, between the scaler that decides and the reconcile that writes."""

from __future__ import annotations

from dllm_operator.scaling.record import Scaling


class ScalingBook:
    """By resource (uid)."""

    def __init__(self) -> None:
        self._pages: dict[str, Scaling] = {}

    def of(self, uid: str) -> Scaling:
        return self._pages.get(uid, Scaling())

    def put(self, uid: str, scaling: Scaling) -> None:
        self._pages[uid] = scaling

    def keep(self, uids: set[str]) -> None:
        """Forget resources that are gone, or no longer scaled here."""
        for uid in self._pages.keys() - uids:
            del self._pages[uid]
