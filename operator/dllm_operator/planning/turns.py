"""Who may roll out now: a pool as it is, its wish, and the others -> what becomes of the wish. Pure.

Edits by a resource's author go at once, one pool of the resource after the other. Changes that nobody asked
for wait for one of a few turns; where one of them does not become ready in time, the pool goes back to the
template that served before, and no other pool follows to the same release.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from dllm_operator.planning.rollout import Progress
from dllm_operator.planning.rollout_record import Cause, RolloutRecord, Undone


class Verdict(StrEnum):
    """What becomes of the template that a pool should have."""

    APPLY = "Apply"  # as it has been, or at once
    TAKE_TURN = "TakeTurn"
    BACK = "Back"  # to the one that served before
    UNDONE = "Undone"  # not again
    PAUSED = "Paused"
    FOLLOW = "Follow"  # after another pool of the resource
    STOPPED = "Stopped"  # a pool elsewhere has failed with this release
    QUEUED = "Queued"

    @property
    def is_held(self) -> bool:
        """Whether the pool keeps the template that it has."""
        return self not in (Verdict.APPLY, Verdict.TAKE_TURN, Verdict.BACK)


@dataclass(frozen=True, slots=True)
class Wish:
    """Digests of the template as rendered now and of what the author says; the release that renders it."""

    template: str
    author: str
    release: str


@dataclass(frozen=True, slots=True)
class PoolNow:
    """A live Deployment. ``serving`` pods; ``is_whole``: all that are wanted serve; ``revision`` is that of
    its controller."""

    progress: Progress
    record: RolloutRecord | None
    serving: int = 0
    is_whole: bool = False
    revision: str = ""

    @property
    def is_rolling_in_turn(self) -> bool:
        return self.progress is Progress.ROLLING and self.record is not None and self.record.has_turn

    @property
    def is_at_stake(self) -> bool:
        """Whether it served completely before a rollout that has not come to its end."""
        has_good = self.record is not None and bool(self.record.good_revision)
        return has_good and self.progress is not Progress.SETTLED


@dataclass(frozen=True, slots=True)
class Others:
    """``free`` turns for this pool; ``sibling`` is a pool of the resource that others follow, ``stopped_by``
    one that failed with the release."""

    free: int
    sibling: str | None = None
    stopped_by: str | None = None


def judge(now: PoolNow | None, wish: Wish, others: Others, *, is_paused: bool = False) -> Verdict:
    """``now`` is None where there is no Deployment yet."""
    if now is None:
        return Verdict.APPLY
    record = now.record
    if record is not None and wish.template == record.template:
        return Verdict.BACK if _has_failed(now) and not is_paused else Verdict.APPLY
    if is_paused:
        return Verdict.PAUSED
    if record is not None and record.undone is not None and wish.template == record.undone.template:
        return Verdict.UNDONE
    if now.serving == 0:
        return Verdict.APPLY
    if others.sibling is not None:
        return Verdict.FOLLOW
    cause = _cause(record, wish)
    if cause is Cause.AUTHOR:
        return Verdict.APPLY
    if cause is Cause.RELEASE and others.stopped_by is not None:
        return Verdict.STOPPED
    if now.is_rolling_in_turn or others.free > 0:
        return Verdict.TAKE_TURN
    return Verdict.QUEUED


def following(now: PoolNow | None, wish: Wish, verdict: Verdict, why: str = "") -> RolloutRecord | None:
    """What the Deployment remembers once the verdict is carried out; None where it keeps what it has. ``why``
    tells of what a pool goes back from."""
    if now is None:
        return RolloutRecord(wish.template, wish.author, wish.release)
    record = now.record
    if verdict.is_held:
        return record
    if record is not None and wish.template == record.template:
        if verdict is not Verdict.BACK:
            return replace(record, author=wish.author, release=wish.release)
        return replace(
            record,
            template=record.good_template,
            release="" if record.cause is Cause.RELEASE else record.release,
            cause=Cause.CLUSTER,
            good_revision="",
            good_template="",
            undone=Undone(record.template, record.cause, record.release, why),
        )
    good_revision, good_template = _good(now)
    return RolloutRecord(
        wish.template,
        wish.author,
        wish.release,
        _cause(record, wish),
        has_turn=verdict is Verdict.TAKE_TURN,
        good_revision=good_revision,
        good_template=good_template,
    )


@dataclass(frozen=True, slots=True)
class Step:
    """A verdict with its reason: ``other`` is the pool that a held one waits for. ``record`` is what the
    Deployment remembers then."""

    verdict: Verdict
    record: RolloutRecord | None = None
    other: str = ""


def stopping(pools: Iterable[tuple[str, PoolNow]], release: str) -> str | None:
    """The first by name of the pools that did not become ready with ``release``, gone back already or not."""
    return min((name for name, now in pools if _stops(now, release)), default=None)


def _stops(now: PoolNow, release: str) -> bool:
    record = now.record
    if record is None:
        return False
    if _has_failed(now) and (record.cause, record.release) == (Cause.RELEASE, release):
        return True
    undone = record.undone
    return undone is not None and (undone.cause, undone.release) == (Cause.RELEASE, release)


def _has_failed(now: PoolNow) -> bool:
    """Whether it has to go back: nobody asked for what did not become ready."""
    record = now.record
    if record is None or now.progress is not Progress.LATE:
        return False
    return record.cause is not Cause.AUTHOR and bool(record.good_revision)


def _cause(record: RolloutRecord | None, wish: Wish) -> Cause:
    if record is None:  # of an operator that kept no records
        return Cause.RELEASE
    if record.author != wish.author:
        return Cause.AUTHOR
    return Cause.RELEASE if record.release != wish.release else Cause.CLUSTER


def _good(now: PoolNow) -> tuple[str, str]:
    """Revision and digest of the template to go back to, should the next one fail; empty where there is
    none."""
    record = now.record
    if now.progress is Progress.SETTLED:
        is_good = now.is_whole and now.serving > 0
        return (now.revision, record.template if record else "") if is_good else ("", "")
    return (record.good_revision, record.good_template) if record else ("", "")
