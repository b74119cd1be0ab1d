"""kopf's memory of what it handled, which this operator does not use: nothing is computed and nothing is
written.

kopf builds the base of its diffs, a deep copy of the object, on every event, also where no handler wants a
diff.
"""

from __future__ import annotations

import kopf


class NoDiffBase(kopf.DiffBaseStorage):
    """The last handled state is always unknown."""

    def build(self, **_: object) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: object) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: object) -> None:
        """Nothing to keep."""


class NoProgress(kopf.ProgressStorage):
    """No handler has progress."""

    def fetch(self, **_: object) -> kopf.ProgressRecord | None:
        return None

    def store(self, **_: object) -> None:
        """Nothing to keep."""

    def purge(self, **_: object) -> None:
        """Nothing is kept."""

    def touch(self, **_: object) -> None:
        """Nothing waits for a touch."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence
