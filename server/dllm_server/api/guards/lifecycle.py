"""Whether the server takes requests."""

from __future__ import annotations

from enum import StrEnum


class ServingState(StrEnum):
    SERVING = "serving"
    LEAVING = "leaving"  # told to stop: takes what still comes, and tells clients to go elsewhere
    DRAINING = "draining"  # told to stop: finishes what runs, takes nothing new
    FAILED = "failed"  # the engine process has ended


_TRANSITIONS = {
    ServingState.SERVING: {ServingState.LEAVING, ServingState.FAILED},
    ServingState.LEAVING: {ServingState.DRAINING, ServingState.FAILED},
    ServingState.DRAINING: {ServingState.FAILED},
    ServingState.FAILED: set[ServingState](),
}


class Lifecycle:
    """The server's state; it starts serving, since the API starts after the engine is ready."""

    def __init__(self) -> None:
        self._state = ServingState.SERVING

    @property
    def state(self) -> ServingState:
        return self._state

    def move_to(self, state: ServingState) -> None:
        if state not in _TRANSITIONS[self._state]:
            raise RuntimeError(f"illegal transition from {self._state} to {state}")
        self._state = state
