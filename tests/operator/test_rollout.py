"""Rollouts where there is room, where there is none, and where an old pod can make some."""

from __future__ import annotations

from typing import Any

import pytest
from dllm_operator.api.v1alpha1 import RollingUpdate
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.placement import free_places
from dllm_operator.cluster.pools import GPU, Node
from dllm_operator.planning.rollout import (
    BESIDE,
    IN_PLACE,
    TEMPLATE,
    Strategy,
    blocked,
    choose,
    is_restarting,
    restart_hindrance,
)

from tests.operator.objects import make_deployment, make_pod, make_refused

ASKS = {"limits": {GPU: "1", "cpu": "4"}}
NODE = Node("node-a", {"zone": "a"}, {GPU: "1"})
CLOSED = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
SAID = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
AUTO = RollingUpdate()
GOING = {"deletionTimestamp": "2026-01-01T00:01:00Z"}


def pod(
    name: str,
    template: str,
    node: str | None = "node-a",
    *,
    asks: dict[str, Any] = ASKS,
    metadata: dict[str, Any] | None = None,
    **spec: Any,
) -> Manifest:
    """Placed and ready, or without a node."""
    born = "2026-01-01T00:00:00Z" if node else "2026-01-01T00:00:30Z"
    made = make_pod(name=name, node=node, is_ready=node is not None, born=born)
    made["metadata"]["labels"] = made["metadata"]["labels"] | {TEMPLATE: template}
    made["metadata"] |= metadata or {}
    made["spec"] |= {"containers": [{"resources": asks}]} | spec
    if node is None:
        unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": SAID}
        made["status"]["conditions"] = [unplaced]
    return made


OLD, NEW = pod("old", "1"), pod("new", "2", None)
MOVED = pod("new", "2", None, nodeSelector={"zone": "b"})
LARGER = pod("new", "2", None, asks={"limits": {GPU: "2", "cpu": "4"}})
SMALLER = pod("new", "2", None, asks={"limits": {GPU: "1"}, "requests": {"cpu": "2500m"}})
TOGETHER = pod("new", "2", None, affinity={"podAffinity": {}})
FAILED = OLD | {"status": OLD["status"] | {"phase": "Failed"}}
EVERYTHING = pod("greedy", "1", asks={"limits": {GPU: "1e1000000", "cpu": "1e999999999"}})
LEAVING = pod("going", "1", metadata=GOING)


@pytest.mark.parametrize(
    ("pods", "could_replace"),
    [
        pytest.param([OLD], None, id="no rollout"),
        pytest.param([OLD, pod("new", "2", "node-b")], None, id="the new pod has a node"),
        pytest.param([NEW], None, id="no old pod: nothing is replaced"),
        pytest.param([OLD, pod("new", "1", None)], None, id="one more of the same template"),
        pytest.param([OLD, NEW], True, id="an old pod has what the new one wants"),
        pytest.param([OLD, SMALLER], True, id="the new one wants less"),
        pytest.param([OLD, TOGETHER], True, id="it wants to be near the old ones"),
        pytest.param([OLD, LARGER], False, id="it wants more"),
        pytest.param([OLD, MOVED], False, id="it wants to be elsewhere"),
        pytest.param([FAILED, NEW], None, id="the only old one has ended for good"),
        pytest.param([OLD, LEAVING, NEW], None, id="a pod on its way out makes room"),
        pytest.param([OLD, LEAVING, NEW, pod("new2", "2", None)], True, id="for one of two"),
    ],
)
def test_a_rollout_is_blocked_where_a_new_pod_finds_no_node_beside_old_ones(
    pods: list[Manifest], could_replace: bool | None
) -> None:
    found = blocked(pods, {"node-a": NODE})

    assert (found and found.could_replace) == could_replace
    assert found is None or (found.said == SAID and found.pod.startswith("new"))


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param({}, id="the node is gone"),
        pytest.param({"node-a": Node("node-a", {}, {}, (CLOSED,))}, id="the node is cordoned"),
    ],
)
def test_a_pod_on_a_node_that_takes_no_new_ones_leaves_no_room(nodes: dict[str, Node]) -> None:
    found = blocked([OLD, NEW], nodes)

    assert found is not None
    assert not found.could_replace


def test_a_tolerated_taint_keeps_nobody_away() -> None:
    tolerations = [{"key": CLOSED["key"], "operator": "Exists"}]
    old, new = pod("old", "1", tolerations=tolerations), pod("new", "2", None, tolerations=tolerations)

    found = blocked([old, new], {"node-a": Node("node-a", {}, {}, (CLOSED,))})

    assert found is not None
    assert found.could_replace


def live(strategy: Strategy, **counts: int) -> Manifest:
    body = make_deployment()
    rolling = {"maxSurge": strategy.max_surge, "maxUnavailable": strategy.max_unavailable}
    body["spec"]["strategy"] = {"rollingUpdate": rolling}
    body["status"] |= {"availableReplicas": 1} | counts
    return body


def over_quota(asks: dict[str, Any] = ASKS, said: str = "exceeded quota: gpus", **counts: int) -> Manifest:
    """A Deployment whose new pods the API server refuses."""
    body = make_refused(live(BESIDE, **({"updatedReplicas": 0} | counts)), said)
    body["spec"]["template"] = {"spec": {"containers": [{"resources": asks}]}}
    return body


MORE = {"limits": {GPU: "2", "cpu": "4"}}


@pytest.mark.parametrize(
    ("rolling", "deployment", "pods", "chosen"),
    [
        pytest.param({}, None, [], BESIDE, id="a new pool"),
        pytest.param({}, live(BESIDE), [OLD], BESIDE, id="nothing rolls"),
        pytest.param({}, live(BESIDE), [OLD, NEW], IN_PLACE, id="no room beside"),
        pytest.param({}, live(BESIDE), [OLD, MOVED], BESIDE, id="no room in the place either"),
        pytest.param({}, live(IN_PLACE, updatedReplicas=0), [LEAVING, NEW], IN_PLACE, id="under way"),
        pytest.param({}, live(IN_PLACE, availableReplicas=0), [OLD], IN_PLACE, id="not yet available"),
        pytest.param({}, live(IN_PLACE), [OLD], BESIDE, id="over"),
        pytest.param({}, over_quota(), [OLD], IN_PLACE, id="a quota lets no pod come beside"),
        pytest.param({}, over_quota(MORE), [OLD], BESIDE, id="nor in the place of one"),
        pytest.param({}, over_quota(), [LEAVING], BESIDE, id="an old one goes already"),
        pytest.param({}, over_quota(said="violates PodSecurity"), [OLD], BESIDE, id="refused anyway"),
        pytest.param({}, over_quota(updatedReplicas=1), [OLD], BESIDE, id="one more is refused"),
        pytest.param({"maxSurge": 1}, over_quota(), [OLD], Strategy(1, 0, True), id="a quota, fixed"),
        pytest.param({"mode": "Auto"}, live(BESIDE), [OLD, NEW], IN_PLACE, id="said to be automatic"),
        pytest.param({"mode": "Fixed"}, live(BESIDE), [OLD, NEW], Strategy(1, 0, True), id="fixed"),
        pytest.param({"maxSurge": 2}, None, [OLD, NEW], Strategy(2, 0, True), id="a number fixes"),
        pytest.param({"maxUnavailable": 1}, None, [OLD, NEW], Strategy(1, 1, True), id="so does the other"),
        pytest.param({"maxSurge": 0, "maxUnavailable": 2}, None, [], Strategy(0, 2, True), id="both"),
    ],
)
def test_a_new_pod_comes_beside_the_old_ones_or_in_the_place_of_one(
    rolling: dict[str, Any], deployment: Manifest | None, pods: list[Manifest], chosen: Strategy
) -> None:
    update = RollingUpdate.model_validate(rolling)

    assert choose(update, deployment, pods, {"node-a": NODE}) == chosen


def test_a_volume_of_one_pod_is_never_wanted_by_two() -> None:
    assert choose(AUTO, None, [OLD], {"node-a": NODE}, is_one_pod=True) == IN_PLACE


@pytest.mark.parametrize(
    ("strategy", "wanted", "free", "waits"),
    [
        pytest.param(BESIDE, 1, None, False, id="nobody knows what is free"),
        pytest.param(BESIDE, 1, 1, False, id="there is room"),
        pytest.param(BESIDE, 1, 0, True, id="the only pod would have to go"),
        pytest.param(BESIDE, 2, 0, False, id="one of two may go"),
        pytest.param(Strategy(1, 0, True), 2, 0, True, id="fixed beside, without room"),
        pytest.param(Strategy(1, 1, True), 2, 0, False, id="fixed, and an old one may go"),
        pytest.param(Strategy(0, 1, True), 1, 0, False, id="the author lets the only pod go"),
        pytest.param(IN_PLACE, 1, None, True, id="a volume of one pod"),
    ],
)
def test_a_restart_that_nobody_asked_for_waits_for_room(
    strategy: Strategy, wanted: int, free: int | None, waits: bool
) -> None:
    assert (restart_hindrance(strategy, wanted, free) is not None) == waits


@pytest.mark.parametrize(
    ("nodes", "pods", "amount", "free"),
    [
        pytest.param([NODE], [], 1, 1, id="an empty node"),
        pytest.param([NODE], [OLD], 1, 0, id="a full one"),
        pytest.param([NODE], [FAILED], 1, 1, id="a pod that has ended holds nothing"),
        pytest.param([NODE], [LEAVING], 1, 0, id="a pod on its way out still holds its GPU"),
        pytest.param([Node("node-a", {"zone": "a"}, {GPU: "8"})], [OLD], 2, 3, id="by twos"),
        pytest.param(
            [Node("node-a", {"zone": "a"}, {GPU: "8"})],
            [EVERYTHING, EVERYTHING],
            1,
            0,
            id="pods that ask for more than can be written out",
        ),
        pytest.param(
            [Node("node-a", {"zone": "a"}, {GPU: "1k"})],
            [OLD],
            1,
            999,
            id="a thousand as quantities spell it",
        ),
        pytest.param([Node("node-a", {"zone": "b"}, {GPU: "8"})], [], 1, 0, id="another kind of node"),
        pytest.param([Node("node-a", {"zone": "a"}, {GPU: "8"}, (CLOSED,))], [], 1, 0, id="cordoned"),
    ],
)
def test_free_places_are_what_nodes_have_and_known_pods_do_not_hold(
    nodes: list[Node], pods: list[Manifest], amount: int, free: int
) -> None:
    assert free_places({"zone": "a"}, (), GPU, amount, nodes, pods) == free


def restarted(generation: str | None, **counts: int) -> Manifest:
    body = make_deployment()
    annotations = {"serving.dllm.dev/tuning-restart": generation} if generation else {}
    body["spec"]["template"] = {"metadata": {"annotations": annotations}}
    body["status"] |= counts
    return body


@pytest.mark.parametrize(
    ("deployment", "generation", "is_under_way"),
    [
        pytest.param(restarted(None), 0, False, id="never restarted"),
        pytest.param(restarted("3"), 3, False, id="every pod is new"),
        pytest.param(restarted("2"), 3, True, id="not told yet"),
        pytest.param(restarted("3", replicas=2, updatedReplicas=1), 3, True, id="an old pod is left"),
        pytest.param(restarted("3", observedGeneration=1), 3, True, id="the controller has not looked"),
        pytest.param(None, 3, True, id="no Deployment"),
    ],
)
def test_a_restart_is_under_way_until_no_pod_of_before_is_left(
    deployment: Manifest | None, generation: int, is_under_way: bool
) -> None:
    assert is_restarting(deployment, generation) == is_under_way
