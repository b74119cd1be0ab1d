"""Rollouts that nobody asked for take turns, and go back where they fail; those of an author stop, and pause.

Simulated nodes run any image. A quota without room for one more pod keeps new pods from becoming ready.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from dllm_operator.planning.rollout import Progress, progress
from dllm_operator.planning.rollout_record import record_of

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import RELEASE_NAMESPACE, Images
from tests.cluster.resources import Fields, Objects, Serving, eventually, merged
from tests.cluster.simulated_nodes import SimulatedNodes, on_node

pytestmark = pytest.mark.cluster

NODE = "simulated-turns"
TURNS = 2
DEADLINE_SECONDS = 15
UPGRADED_SECONDS = 180.0
SPEC: Fields = {"device": "cpu", "podTemplate": on_node(NODE)}
BESIDE: Fields = {
    "podTemplate": {"rollingUpdate": {"maxSurge": 1}},
    "rollout": {"progressDeadlineSeconds": DEADLINE_SECONDS},
}
PINNED: Fields = {"image": "example.local/pinned:1"}


@pytest.fixture(scope="module", autouse=True)
def node(standing_nodes: SimulatedNodes) -> None:
    standing_nodes.add(NODE)


@pytest.fixture
def releases(cluster: Cluster, operator: Images) -> Iterator[Releases]:
    """The former default image comes back at the end."""
    releases = Releases(cluster)
    yield releases
    releases.upgrade(operator.server)


class Releases:
    """Upgrades of the chart to other default images."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def upgrade(self, image: str) -> None:
        values = ("--set", f"server.image={image}", "--set", f"rollouts.maxConcurrentPools={TURNS}")
        where = ("-n", RELEASE_NAMESPACE)
        self._cluster.helm("upgrade", "dllm", "charts/dllm-operator", *where, "--reuse-values", *values)
        self._cluster.kubectl("rollout", "status", "deployment/dllm-operator", *where, "--timeout=120s")


def image(serving: Serving, pool: str = "cpu") -> str:
    """Of the pods to be."""
    container = serving.deployment(pool)["spec"]["template"]["spec"]["containers"][0]
    return str(container["image"])


def rolling(objects: Objects) -> int:
    """Pools that roll in turn now."""
    found = [(progress(live), record_of(live)) for live in objects.list("Deployment")]
    return sum(now is Progress.ROLLING and record is not None and record.has_turn for now, record in found)


def fill_quota(objects: Objects, pods: int) -> None:
    """No pod beyond those there are, as soon as this returns."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}}
    objects.create(quota | {"spec": {"hard": {"pods": str(pods)}}})

    def check() -> None:
        used = objects.get("ResourceQuota", "full").get("status", {}).get("used", {})
        assert used.get("pods") == str(pods), used

    eventually(check)


def test_an_upgrade_rolls_a_few_pools_at_a_time_and_reaches_all_that_follow_the_default(
    objects: Objects, releases: Releases
) -> None:
    following = [Serving.create(objects, f"r{number}", SPEC, {"replicas": 2}) for number in range(5)]
    pinned = Serving.create(objects, "pinned", SPEC, PINNED)
    for serving in (*following, pinned):
        serving.wait_ready()
    pods = {pod["metadata"]["uid"] for pod in pinned.pods()}

    releases.upgrade("example.local/server:next")

    most, deadline = 0, time.monotonic() + UPGRADED_SECONDS
    while {image(serving) for serving in following} != {"example.local/server:next"}:
        assert time.monotonic() < deadline, [image(serving) for serving in following]
        most = max(most, rolling(objects))
    for serving in following:
        serving.wait_ready(UPGRADED_SECONDS)
    assert 1 <= most <= TURNS
    assert {pod["metadata"]["uid"] for pod in pinned.pods()} == pods


def test_a_release_that_does_not_become_ready_goes_back_and_stops_the_rest(
    objects: Objects, releases: Releases
) -> None:
    servings = [Serving.create(objects, f"r{number}", SPEC, BESIDE) for number in range(5)]
    for serving in servings:
        serving.wait_ready()
    before = image(servings[0])
    pods = {pod["metadata"]["uid"] for serving in servings for pod in serving.pods()}
    fill_quota(objects, len(servings))

    releases.upgrade("example.local/server:bad")

    def check_stopped() -> dict[str, str]:
        reasons = {serving.name: str(serving.condition("Progressing")["reason"]) for serving in servings}
        assert set(reasons.values()) == {"RolledBack", "RolloutStopped"}, reasons
        return reasons

    reasons = eventually(check_stopped, UPGRADED_SECONDS)
    assert 1 <= list(reasons.values()).count("RolledBack") <= TURNS
    assert {image(serving) for serving in servings} == {before}
    assert {pod["metadata"]["uid"] for serving in servings for pod in serving.pods()} == pods
    back = [name for name, reason in reasons.items() if reason == "RolledBack"]
    for serving in servings:
        progressing = serving.condition("Progressing")
        assert serving.condition("Ready")["status"] == "True"
        eventually(lambda: check_warned(serving, reasons[serving.name]))  # noqa: B023
        if progressing["reason"] == "RolledBack":
            assert "example.local/server:bad" in progressing["message"]
        else:
            told = [f"Deployment {name}-cpu did not become ready" in progressing["message"] for name in back]
            assert any(told), progressing

    objects.delete("ResourceQuota", "full")
    releases.upgrade("example.local/server:good")

    def check_upgraded() -> None:
        assert {image(serving) for serving in servings} == {"example.local/server:good"}

    eventually(check_upgraded, UPGRADED_SECONDS)
    for serving in servings:
        serving.wait_ready(UPGRADED_SECONDS)


def check_warned(serving: Serving, reason: str) -> None:
    assert [event["type"] for event in serving.events(reason)] == ["Warning"]


def test_an_edit_that_does_not_become_ready_is_told_and_other_pools_keep_theirs(objects: Objects) -> None:
    pools: Fields = {"gpuPools": [{"name": "left"}, {"name": "right"}]}
    serving = Serving.create(objects, "a", SPEC, BESIDE, pools, {"engine": {"maxNumSeqs": 8}})
    serving.wait_ready()
    fill_quota(objects, 2)

    serving.edit({"engine": {"maxNumSeqs": 4}})

    progressing = serving.wait_reason("Progressing", "ProgressDeadlineExceeded", 60.0)
    assert f"did not become ready within {DEADLINE_SECONDS} s" in progressing["message"]
    assert "exceeded quota: full" in progressing["message"]
    assert "pools right follow pool left" in progressing["message"]
    assert serving.environment("left")["DLLM_MAX_NUM_SEQS"] == "4"
    assert serving.environment("right")["DLLM_MAX_NUM_SEQS"] == "8"
    assert serving.condition("Ready")["status"] == "True"

    objects.delete("ResourceQuota", "full")

    eventually(lambda: check_setting(serving, "right", "4"), UPGRADED_SECONDS)
    serving.wait_ready(60.0)


def check_setting(serving: Serving, pool: str, value: str) -> None:
    assert serving.environment(pool)["DLLM_MAX_NUM_SEQS"] == value


def test_a_pause_holds_the_template_and_not_the_number_of_pods(objects: Objects) -> None:
    paused: Fields = {"rollout": {"pause": True}}
    serving = Serving.create(objects, "a", SPEC, {"engine": {"maxNumSeqs": 8}})
    serving.wait_ready()
    generation = serving.deployment()["metadata"]["generation"]

    serving.edit(merged(paused, {"engine": {"maxNumSeqs": 4}}))

    progressing = serving.wait_reason("Progressing", "Paused")
    assert progressing["message"] == "spec.rollout.pause holds a change of pools cpu"
    assert serving.deployment()["metadata"]["generation"] == generation

    serving.edit({"replicas": 2})

    eventually(lambda: check_pods(serving, 2))
    check_setting(serving, "cpu", "8")

    serving.edit({"rollout": {"pause": False}})

    eventually(lambda: check_setting(serving, "cpu", "4"))
    assert serving.wait_ready()["replicas"] == 2


def check_pods(serving: Serving, number: int) -> None:
    assert len(serving.pods()) == number
    assert serving.status()["readyReplicas"] == number
