"""Who may roll out: single verdicts, and whole upgrades of clusters in which anything may happen."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.labels import ROLLOUT, child_labels
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.plan import PoolPlan
from dllm_operator.planning.rollout import REVISION, Progress
from dllm_operator.planning.rollout_record import (
    Cause,
    RolloutRecord,
    Undone,
    author_digest,
    record_of,
    template_digest,
    with_record,
)
from dllm_operator.planning.turns import Others, PoolNow, Verdict, Wish, following, judge, stopping
from dllm_operator.process.rollouts import Rollouts
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.operator.objects import make_body, make_pod, make_spec

OLD = RolloutRecord("old", "a", "r1")
NEW = Wish("new", "a", "r2")
SERVING = PoolNow(Progress.SETTLED, OLD, serving=2, is_whole=True, revision="3")
ROLLING = PoolNow(Progress.ROLLING, RolloutRecord("mid", "a", "r2", Cause.RELEASE, True, "3", "old"), 1)
LATE = replace(ROLLING, progress=Progress.LATE)
FAILED = RolloutRecord("old", "a", "", Cause.CLUSTER, undone=Undone("new", Cause.RELEASE, "r2"))
BACK = replace(SERVING, record=FAILED)
FREE, BUSY = Others(1), Others(0)


@pytest.mark.parametrize(
    ("now", "wish", "others", "verdict"),
    [
        pytest.param(None, NEW, BUSY, Verdict.APPLY, id="a new pool"),
        pytest.param(SERVING, Wish("old", "b", "r2"), BUSY, Verdict.APPLY, id="the same template"),
        pytest.param(SERVING, Wish("new", "b", "r1"), BUSY, Verdict.APPLY, id="an edit"),
        pytest.param(SERVING, Wish("new", "b", "r2"), BUSY, Verdict.APPLY, id="an edit after a release"),
        pytest.param(SERVING, Wish("new", "b", "r1"), Others(0, "x"), Verdict.FOLLOW, id="a second pool"),
        pytest.param(SERVING, NEW, FREE, Verdict.TAKE_TURN, id="a release"),
        pytest.param(SERVING, NEW, BUSY, Verdict.QUEUED, id="a release, no turn"),
        pytest.param(SERVING, NEW, Others(1, "x"), Verdict.FOLLOW, id="a release after another pool"),
        pytest.param(SERVING, NEW, Others(1, None, "n/x"), Verdict.STOPPED, id="a release that failed"),
        pytest.param(
            SERVING, Wish("new", "b", "r2"), Others(0, None, "n/x"), Verdict.APPLY, id="an edit all the same"
        ),
        pytest.param(SERVING, Wish("new", "a", "r1"), FREE, Verdict.TAKE_TURN, id="the tuner"),
        pytest.param(SERVING, Wish("new", "a", "r1"), BUSY, Verdict.QUEUED, id="the tuner, no turn"),
        pytest.param(
            SERVING, Wish("new", "a", "r1"), Others(1, None, "n/x"), Verdict.TAKE_TURN, id="tuner, stopped"
        ),
        pytest.param(replace(SERVING, serving=0), NEW, BUSY, Verdict.APPLY, id="nothing at stake"),
        pytest.param(replace(SERVING, record=None), NEW, FREE, Verdict.TAKE_TURN, id="of a former operator"),
        pytest.param(ROLLING, NEW, BUSY, Verdict.TAKE_TURN, id="it has a turn"),
        pytest.param(ROLLING, Wish("mid", "a", "r2"), BUSY, Verdict.APPLY, id="under way"),
        pytest.param(LATE, Wish("mid", "a", "r2"), FREE, Verdict.BACK, id="late"),
        pytest.param(LATE, NEW, BUSY, Verdict.QUEUED, id="late, and the next release has come"),
        pytest.param(LATE, NEW, FREE, Verdict.TAKE_TURN, id="late, and the next release may go"),
        pytest.param(BACK, NEW, FREE, Verdict.UNDONE, id="not again"),
        pytest.param(BACK, Wish("old", "a", "r1"), FREE, Verdict.APPLY, id="the former release is back"),
        pytest.param(BACK, Wish("newer", "a", "r3"), FREE, Verdict.TAKE_TURN, id="the next release"),
        pytest.param(BACK, Wish("newer", "b", "r2"), BUSY, Verdict.APPLY, id="an edit after going back"),
    ],
)
def test_a_change_of_template_goes_waits_or_is_undone(
    now: PoolNow | None, wish: Wish, others: Others, verdict: Verdict
) -> None:
    assert judge(now, wish, others) is verdict


@pytest.mark.parametrize("cause", [Cause.AUTHOR, Cause.CLUSTER, Cause.RELEASE])
@pytest.mark.parametrize("good", ["", "3"])
def test_only_a_change_that_nobody_asked_for_is_undone_and_only_to_what_served(
    cause: Cause, good: str
) -> None:
    record = RolloutRecord("mid", "a", "r2", cause, True, good)

    verdict = judge(replace(LATE, record=record), Wish("mid", "a", "r2"), FREE)

    is_undone = cause is not Cause.AUTHOR and bool(good)
    assert verdict is (Verdict.BACK if is_undone else Verdict.APPLY)


@pytest.mark.parametrize(
    ("now", "wish", "verdict"),
    [
        (SERVING, NEW, Verdict.PAUSED),
        (SERVING, Wish("new", "b", "r1"), Verdict.PAUSED),
        (replace(SERVING, serving=0), NEW, Verdict.PAUSED),
        (SERVING, Wish("old", "b", "r2"), Verdict.APPLY),
        (LATE, Wish("mid", "a", "r2"), Verdict.APPLY),
        (None, NEW, Verdict.APPLY),
    ],
)
def test_a_pause_holds_every_change_of_what_is_there(
    now: PoolNow | None, wish: Wish, verdict: Verdict
) -> None:
    assert judge(now, wish, FREE, is_paused=True) is verdict


def test_a_rollout_remembers_what_served_before_it_until_it_has_come_to_its_end() -> None:
    first = following(SERVING, NEW, Verdict.TAKE_TURN)
    assert first == RolloutRecord("new", "a", "r2", Cause.RELEASE, True, "3", "old")

    second = following(
        PoolNow(Progress.ROLLING, first, 1, revision="4"), Wish("newer", "a", "r3"), Verdict.TAKE_TURN
    )
    assert second == RolloutRecord("newer", "a", "r3", Cause.RELEASE, True, "3", "old")

    third = following(PoolNow(Progress.SETTLED, second, 2, True, "5"), NEW, Verdict.TAKE_TURN)
    assert third is not None
    assert (third.good_revision, third.good_template) == ("5", "newer")


@pytest.mark.parametrize("now", [replace(SERVING, is_whole=False), replace(SERVING, serving=0)])
def test_a_pool_that_did_not_serve_completely_is_no_evidence_against_a_release(now: PoolNow) -> None:
    record = following(now, NEW, Verdict.TAKE_TURN)

    assert record is not None
    assert record.good_revision == ""


def test_a_pool_that_went_back_stops_its_release_and_no_other() -> None:
    record = following(LATE, Wish("mid", "a", "r2"), Verdict.BACK, "pod x: boom")

    assert record is not None
    assert (record.template, record.undone) == ("old", Undone("mid", Cause.RELEASE, "r2", "pod x: boom"))
    back = replace(LATE, progress=Progress.ROLLING, record=record)
    assert stopping([("n/x", back), ("n/a", SERVING)], "r2") == "n/x"
    assert stopping([("n/x", LATE)], "r2") == "n/x"
    assert stopping([("n/x", ROLLING)], "r2") is None
    assert stopping([("n/x", back), ("n/y", LATE)], "r3") is None
    tuned = replace(LATE, record=RolloutRecord("mid", "a", "r2", Cause.CLUSTER, True, "3", "old"))
    undone = following(tuned, Wish("mid", "a", "r2"), Verdict.BACK)
    assert stopping([("n/x", tuned), ("n/y", replace(tuned, record=undone))], "r2") is None


def test_a_held_pool_keeps_its_record() -> None:
    assert following(SERVING, NEW, Verdict.QUEUED) is OLD


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"replicas": 4}, True),
        ({"rollout": {"pause": True}}, True),
        ({"monitoring": {"podMonitor": True}}, True),
        ({"gpuPools": [{"name": "a", "product": "L4", "replicas": 3}, {"name": "b"}]}, True),
        ({"gpuPools": [{"name": "a", "product": "L4"}, {"name": "b", "gpusPerReplica": 2}]}, True),
        ({"gpuPools": [{"name": "a", "product": "L4", "gpusPerReplica": 2}, {"name": "b"}]}, False),
        ({"image": "example.local/x:1"}, False),
        ({"engine": {"maxNumSeqs": 4}}, False),
        ({"podTemplate": {"annotations": {"try": "again"}}}, False),
    ],
)
def test_an_author_is_told_by_what_reaches_the_pods_of_a_pool(changes: dict[str, Any], is_same: bool) -> None:
    before = {"gpuPools": [{"name": "a", "product": "L4"}, {"name": "b"}]}

    digests = {author_digest(make_spec(**(before | each)), "a") for each in ({}, changes)}

    assert (len(digests) == 1) is is_same


def test_a_record_is_read_back_as_it_was_written() -> None:
    for record in (OLD, FAILED, LATE.record):
        assert record is not None
        assert record_of(with_record({"metadata": {"name": "x"}}, record)) == record
    assert record_of({"metadata": {"annotations": {ROLLOUT: "{}"}}}) is None
    assert record_of({"metadata": {}}) is None


@dataclass
class Cluster:
    """Deployments as their controller would have them; ``broken`` pools never become ready with ``bad``
    releases."""

    limit: int
    pools: list[tuple[str, str]]  # resource, pool
    broken: frozenset[tuple[str, str]] = frozenset()
    bad: frozenset[str] = frozenset()
    release: str = "r1"
    version: int = 10
    view: ClusterView = field(default_factory=ClusterView)
    woken: list[tuple[str, str]] = field(default_factory=list)
    most: int = 0

    def __post_init__(self) -> None:
        self.lead()
        for resource, pool in self.pools:
            self.view.resources.put(make_body(name=resource, uid=resource))
            self.view.pods.put(self.pod(resource, pool))
            record = RolloutRecord(self.template("r1"), self.author(pool), "r1")
            self.put(resource, pool, record, revision=1, reason="NewReplicaSetAvailable")

    def lead(self) -> None:
        """An operator that has just begun to."""
        self.rollouts = Rollouts(self.view, self.limit, self.release, self.woken.append)

    def upgrade(self, release: str) -> None:
        self.release = release
        self.lead()

    def template(self, release: str) -> str:
        return template_digest({"image": release})

    def author(self, pool: str) -> str:
        return author_digest(make_spec(), pool)

    def pod(self, resource: str, pool: str) -> Manifest:
        pod = make_pod(name=f"{resource}-{pool}", pool=pool, is_ready=True)
        pod["metadata"]["labels"] = child_labels(resource, pool)
        return pod

    def put(self, resource: str, pool: str, record: RolloutRecord, revision: int, reason: str) -> None:
        self.version += 1
        updated = 1 if reason == "NewReplicaSetAvailable" else 0
        status = {
            "observedGeneration": 1,
            "replicas": 1,
            "updatedReplicas": updated,
            "availableReplicas": 1,
            "conditions": [{"type": "Progressing", "status": "True", "reason": reason}],
        }
        metadata = {
            "name": f"{resource}-{pool}",
            "namespace": "team-a",
            "uid": f"{resource}-{pool}",
            "resourceVersion": str(self.version),
            "generation": 1,
            "labels": child_labels(resource, pool),
            "annotations": {REVISION: str(revision)},
        }
        live = with_record({"metadata": metadata, "spec": {"replicas": 1}, "status": status}, record)
        self.view.children["Deployment"].put(live)

    def live(self, resource: str, pool: str) -> Manifest:
        return self.view.children["Deployment"].objects["team-a", f"{resource}-{pool}"]

    def record(self, resource: str, pool: str) -> RolloutRecord:
        record = record_of(self.live(resource, pool))
        assert record is not None
        return record

    def reconcile(self, name: str) -> None:
        resource = Resource.parse(self.view.resources.objects["team-a", name])
        assert resource.spec is not None
        mine = [pool for owner, pool in self.pools if owner == name]
        plans = [PoolPlan(pool, f"{name}-{pool}") for pool in mine]
        manifests = [
            {
                "kind": "Deployment",
                "metadata": {"name": plan.deployment},
                "spec": {"template": {"image": self.release}},
            }
            for plan in plans
        ]
        steps = self.rollouts.decide(resource, resource.spec, plans, manifests)
        for pool, plan in zip(mine, plans, strict=True):
            step, live = steps[plan.deployment], self.live(name, pool)
            assert step.record is not None
            if step.record != record_of(live):
                revision = int(live["metadata"]["annotations"][REVISION])
                is_new = step.record.template != self.record(name, pool).template
                reason = "ReplicaSetUpdated" if is_new else self.reason(name, pool)
                self.put(name, pool, step.record, revision + is_new, reason)
        self.rollouts.written("team-a", steps)
        self.most = max(self.most, len(self.rolling()))
        self.rollouts.wake_next()

    def reason(self, resource: str, pool: str) -> str:
        return str(self.live(resource, pool)["status"]["conditions"][0]["reason"])

    def rolling(self) -> list[tuple[str, str]]:
        """Those that roll forward: pods that served are at stake."""
        return [
            each
            for each in self.pools
            if self.reason(*each) == "ReplicaSetUpdated" and self.record(*each).has_turn
        ]

    def under_way(self) -> list[tuple[str, str]]:
        return [each for each in self.pools if self.reason(*each) == "ReplicaSetUpdated"]

    def finish(self, resource: str, pool: str) -> None:
        """The rollout's end, as its controller tells it; the event wakes the resource."""
        record = self.record(resource, pool)
        is_bad = (resource, pool) in self.broken and any(
            record.template == self.template(release) for release in self.bad
        )
        revision = int(self.live(resource, pool)["metadata"]["annotations"][REVISION])
        self.put(
            resource,
            pool,
            record,
            revision,
            "ProgressDeadlineExceeded" if is_bad else "NewReplicaSetAvailable",
        )
        self.woken.append(("team-a", resource))

    def run(self, chance: random.Random, restarts: int) -> None:
        """Until nothing wants to be looked at and nothing rolls; fails where that never comes."""
        self.woken += [("team-a", name) for name, _ in self.pools]
        for _ in range(200 * len(self.pools)):
            if self.woken and (not self.under_way() or chance.random() < 0.5):
                self.reconcile(self.woken.pop(chance.randrange(len(self.woken)))[1])
            elif self.under_way():
                self.finish(*chance.choice(self.under_way()))
            else:
                break
            if restarts and chance.random() < 0.1:
                restarts -= 1
                self.lead()
                self.woken += [("team-a", name) for name, _ in self.pools]
        assert not self.woken, "goes on for ever"
        assert not self.under_way()

    def upgraded(self) -> list[bool]:
        return [self.record(*each).template == self.template(self.release) for each in self.pools]


POOLS = st.lists(
    st.tuples(st.sampled_from(["r0", "r1", "r2", "r3", "r4", "r5"]), st.sampled_from(["a", "b"])),
    min_size=1,
    max_size=9,
    unique=True,
)


@settings(max_examples=40, deadline=None, phases=[Phase.generate])
@given(st.randoms(use_true_random=True), POOLS, st.integers(1, 4), st.integers(0, 3))
def test_an_upgrade_reaches_every_pool_and_never_more_than_some_at_once(
    chance: random.Random, pools: list[tuple[str, str]], limit: int, restarts: int
) -> None:
    cluster = Cluster(limit, pools)
    cluster.upgrade("r2")

    cluster.run(chance, restarts)

    assert all(cluster.upgraded())
    assert cluster.most <= limit


@settings(max_examples=40, deadline=None, phases=[Phase.generate])
@given(st.randoms(use_true_random=True), POOLS, st.integers(1, 4), st.integers(0, 3))
def test_a_bad_release_costs_a_few_pools_a_rollout_and_the_next_one_reaches_all(
    chance: random.Random, pools: list[tuple[str, str]], limit: int, restarts: int
) -> None:
    cluster = Cluster(limit, pools, frozenset(pools), frozenset({"r2"}))
    cluster.upgrade("r2")

    cluster.run(chance, restarts)

    undone = [each for each in pools if cluster.record(*each).undone is not None]
    assert 1 <= len(undone) <= limit
    assert {cluster.record(*each).template for each in pools} == {cluster.template("r1")}

    cluster.upgrade("r3")
    cluster.run(chance, restarts)

    assert all(cluster.upgraded())
    assert cluster.most <= limit


def test_a_turn_given_is_taken_before_it_is_written() -> None:
    cluster = Cluster(1, [("r0", "a"), ("r1", "a")])
    cluster.upgrade("r2")
    first, second = (Resource.parse(cluster.view.resources.objects["team-a", name]) for name in ("r0", "r1"))

    def decide(resource: Resource) -> Verdict:
        name = f"{resource.name}-a"
        manifest = {"kind": "Deployment", "metadata": {"name": name}, "spec": {"template": {"image": "r2"}}}
        assert resource.spec is not None
        steps = cluster.rollouts.decide(resource, resource.spec, [PoolPlan("a", name)], [manifest])
        return steps[name].verdict

    assert decide(first) is Verdict.TAKE_TURN
    assert decide(second) is Verdict.QUEUED
    cluster.rollouts.written("team-a", ["r0-a"])  # refused by the API server, say
    cluster.rollouts.wake_next()
    assert cluster.woken == [("team-a", "r1")]
    assert decide(second) is Verdict.TAKE_TURN


def test_a_resource_that_is_gone_waits_for_no_turn() -> None:
    cluster = Cluster(1, [("r0", "a"), ("r1", "a"), ("r2", "a")])
    cluster.upgrade("r2")
    for name in ("r0", "r1", "r2"):
        cluster.reconcile(name)
    cluster.rollouts.forget(("team-a", "r1"))
    cluster.finish("r0", "a")
    cluster.woken.clear()

    cluster.reconcile("r0")

    assert cluster.woken == [("team-a", "r2")]


def test_a_record_is_small() -> None:
    """It is copied to every ReplicaSet."""
    text = with_record({"metadata": {}}, FAILED)["metadata"]["annotations"][ROLLOUT]

    assert len(text) < 256
    assert json.loads(text)["template"] == "old"
