"""When a resource has a front door, what it consists of, and what its condition says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from dllm_operator.api.v1alpha1 import check_spec
from dllm_operator.cluster.observe import ChildKey, Manifest, Observed
from dllm_operator.planning.plan import Plan, plan
from dllm_operator.reporting.status import conditions, situation
from dllm_operator.scaling.record import Scaling

from tests.operator.objects import NAME, NAMESPACE, make_observed, make_resource, make_spec, render_resource

ON = {"frontDoor": "On"}
POOLS = [
    {"name": "fast", "replicas": 2, "engine": {"maxNumSeqs": 64}},
    {"name": "slow", "replicas": 1, "engine": {"maxNumSeqs": 8}},
]
TWO_POOLS: dict[str, Any] = {"device": "cpu", "gpuPools": POOLS, "networking": ON}
WAITING = {
    "minReplicas": 1,
    "maxReplicas": 8,
    "metric": {"target": 4},
    "prometheusAddress": "http://p:9090",
}
PICKER = {"endpointPicker": {"name": "epp"}}
DOOR_PODS = {"app.kubernetes.io/name": "dllm-front-door", "app.kubernetes.io/instance": NAME}
ENGINES = {"app.kubernetes.io/instance": NAME, "app.kubernetes.io/managed-by": "dllm-operator"}


def live(kind: str, name: str, **body: Any) -> tuple[ChildKey, Manifest]:
    labels = {"app.kubernetes.io/component": "front-door"} if "front-door" in name else {}
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels, "generation": 1}
    return ChildKey(kind, name), {"metadata": metadata, **body}


def with_door(available: int, *, selector: dict[str, str] | None = None, **status: Any) -> Observed:
    """A cluster where the door's Deployments exist, and the Service with that selector."""
    deployments = [
        live(
            "Deployment",
            f"chat-front-door-{number}",
            spec={"replicas": 1},
            status={"availableReplicas": int(available >= number)} | status,
        )
        for number in (1, 2)
    ]
    service = live("Service", NAME, spec={"selector": selector or ENGINES})
    return make_observed(children=dict([*deployments, service]))


def planned(observed: Observed | None = None, **spec: Any) -> Plan:
    return plan(NAME, make_spec(**spec), observed or make_observed())


def child(kind: str, name: str, observed: Observed | None = None, **spec: Any) -> Manifest:
    found = render_resource(make_resource(**spec), observed)
    return next(each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name))


@pytest.mark.parametrize(
    ("spec", "has_door"),
    [
        ({"device": "cpu", "replicas": 3}, False),
        ({"device": "cpu", "replicas": 1, "networking": ON}, True),
        ({"device": "cpu", "replicas": 1, "networking": {"frontDoor": "Auto"}}, False),
        ({"device": "cpu", "replicas": 2, "networking": {"frontDoor": "Auto"}}, True),
        ({"device": "cpu", "gpuPools": POOLS, "networking": {"frontDoor": "Auto"}}, True),
        (
            {"device": "cpu", "replicas": 2, "networking": {"frontDoor": "Auto", "inferencePool": PICKER}},
            False,
        ),
        ({"device": "cpu", "autoscaling": WAITING, "networking": {"frontDoor": "Auto"}}, False),
        (
            {
                "device": "cpu",
                "autoscaling": WAITING | {"metric": {"name": "running", "target": 4}},
                "networking": {"frontDoor": "Auto"},
            },
            True,
        ),
    ],
)
def test_who_has_a_front_door(spec: dict[str, Any], has_door: bool) -> None:
    assert (planned(**spec).door is not None) == has_door


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"networking": ON | {"inferencePool": PICKER}}, "inferencePool"),
        ({"networking": ON, "autoscaling": WAITING}, "autoscaling.metric"),
        ({"networking": ON, "gpuPools": [{"name": "front-door"}]}, "front-door"),
        ({"networking": {"frontDoor": "Auto"}, "gpuPools": [{"name": "front-door"}]}, "front-door"),
    ],
)
def test_a_door_that_makes_no_sense_is_refused(spec: dict[str, Any], word: str) -> None:
    [problem] = check_spec(make_spec(device="cpu", **spec))

    assert "frontDoor" in problem
    assert word in problem


def test_without_a_door_the_children_are_those_of_before() -> None:
    names = [each["metadata"]["name"] for each in render_resource(make_resource(device="cpu", replicas=3))]

    assert not [name for name in names if "door" in name or "engines" in name]


def test_a_pod_gets_what_its_pools_engine_runs_at_once() -> None:
    door = planned(**TWO_POOLS).door

    assert door is not None
    assert door.limits == {"fast": 65, "slow": 9}


def test_the_service_leads_to_the_engines_until_a_door_is_available() -> None:
    closed = child("Service", NAME, with_door(0), **TWO_POOLS)
    opened = child("Service", NAME, with_door(1), **TWO_POOLS)

    assert closed["spec"]["selector"] == ENGINES
    assert opened["spec"]["selector"] == DOOR_PODS


def test_an_open_door_stays_open_while_its_pods_are_away() -> None:
    service = child("Service", NAME, with_door(0, selector=DOOR_PODS), **TWO_POOLS)

    assert service["spec"]["selector"] == DOOR_PODS


def test_the_service_leads_back_to_the_engines_when_the_door_is_no_longer_wanted() -> None:
    spec = TWO_POOLS | {"networking": {"frontDoor": "Off"}}

    assert child("Service", NAME, with_door(2, selector=DOOR_PODS), **spec)["spec"]["selector"] == ENGINES


def test_only_the_door_may_call_the_engines_once_it_is_open() -> None:
    policy = child("NetworkPolicy", NAME, with_door(2), **TWO_POOLS)["spec"]
    before = child("NetworkPolicy", NAME, with_door(0), **TWO_POOLS)["spec"]

    assert policy["podSelector"] == {"matchLabels": ENGINES}
    [door, operator] = policy["ingress"][0]["from"]
    assert door == {"podSelector": {"matchLabels": DOOR_PODS}}
    assert "namespaceSelector" in operator
    assert "from" not in before["ingress"][0]


def test_those_who_might_call_the_engines_may_call_the_door() -> None:
    peer = {"podSelector": {"matchLabels": {"app": "web"}}}
    spec = TWO_POOLS | {"networking": ON | {"networkPolicy": {"from": [peer]}}}

    rules = child("NetworkPolicy", "chat-front-door", with_door(2), **spec)["spec"]["ingress"]

    assert [rule["ports"][0]["port"] for rule in rules] == [8080, 9464]
    assert rules[0]["from"][0] == peer


def test_no_selector_of_engines_finds_a_pod_of_the_door() -> None:
    labels = child("Deployment", "chat-front-door-1", **TWO_POOLS)["spec"]["template"]["metadata"]["labels"]

    assert not ENGINES.items() <= labels.items()


def test_each_pool_has_a_name_by_which_the_door_finds_its_pods() -> None:
    config = child("ConfigMap", "chat-front-door", **TWO_POOLS)["data"]["first.cfg"]

    for pool, limit in (("fast", 65), ("slow", 9)):
        service = child("Service", f"chat-{pool}-engines", **TWO_POOLS)
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["publishNotReadyAddresses"]  # names come late, checks tell who is ready
        assert service["spec"]["selector"] == ENGINES | {"serving.dllm.dev/pool": pool}
        [line] = [line for line in config.splitlines() if f"-{pool}-engines." in line]
        assert f" chat-{pool}-engines.{NAMESPACE}.svc.cluster.local:8000 resolvers " in line
        assert f" maxconn {limit} " in line


def test_another_limit_takes_other_pods_of_the_door() -> None:
    other = TWO_POOLS | {"gpuPools": [POOLS[0], POOLS[1] | {"engine": {"maxNumSeqs": 16}}]}
    templates = [
        child("Deployment", "chat-front-door-1", **spec)["spec"]["template"] for spec in (TWO_POOLS, other)
    ]

    assert templates[0] != templates[1]


def test_the_doors_pods_keep_to_the_restricted_profile() -> None:
    pod = child("Deployment", "chat-front-door-1", **TWO_POOLS)["spec"]["template"]["spec"]
    [container] = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def test_a_door_lives_as_long_as_the_longest_request() -> None:
    spec = TWO_POOLS | {"networking": ON | {"requestTimeoutSeconds": 1200}}

    pod = child("Deployment", "chat-front-door-1", **spec)["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 1200


@pytest.mark.parametrize(
    ("observed", "status", "reason", "word"),
    [
        (make_observed(), False, "DoorStarting", "engines meanwhile"),
        (with_door(0), False, "DoorStarting", "0 of 2"),
        (with_door(1), True, "DoorOpen", "1 of 2"),
        (with_door(2), True, "DoorOpen", "2 of 2"),
        (with_door(0, selector=DOOR_PODS), False, "DoorNotReady", "nobody answers"),
        (
            with_door(
                0,
                selector=DOOR_PODS,
                conditions=[{"type": "ReplicaFailure", "status": "True", "message": "quota"}],
            ),
            False,
            "DoorNotReady",
            "quota",
        ),
    ],
)
def test_the_condition_says_how_the_door_stands(
    observed: Observed, status: bool, reason: str, word: str
) -> None:
    resource = make_resource(**TWO_POOLS)
    found = conditions(situation(resource, planned(observed, **TWO_POOLS), observed, None))

    [door] = [each for each in found if each.type == "DoorReady"]
    assert (door.status, door.reason) == (status, reason)
    assert word in door.message
    ready = next(each for each in found if each.type == "Ready")
    assert (ready.reason == "DoorNotReady") == (reason == "DoorNotReady")


def test_the_second_door_leaves_all_to_the_first_as_long_as_that_is_there() -> None:
    data = child("ConfigMap", "chat-front-door", **TWO_POOLS)["data"]
    [line] = [line for line in data["second.cfg"].splitlines() if "server-template first-" in line]
    engines = [line for line in data["second.cfg"].splitlines() if "-engines." in line]
    service = child("Service", "chat-front-door-1", **TWO_POOLS)["spec"]
    labels = [
        child("Deployment", f"chat-front-door-{number}", **TWO_POOLS)["spec"]["template"]["metadata"][
            "labels"
        ]
        for number in (1, 2)
    ]

    assert f" 2 chat-front-door-1.{NAMESPACE}.svc.cluster.local:8080 " in line
    assert engines and all(each.endswith(" backup") for each in engines)
    assert "backup" not in data["first.cfg"] and "first-" not in data["first.cfg"]
    assert [service["selector"].items() <= each.items() for each in labels] == [True, False]
    assert all(DOOR_PODS.items() <= each.items() for each in labels)


def test_the_doors_deployments_are_no_pool() -> None:
    observed = with_door(2)
    now = situation(make_resource(**TWO_POOLS), planned(observed, **TWO_POOLS), observed, None)

    assert [pool.name for pool in now.pools] == ["fast", "slow"]
    assert not observed.deployments()


BUILTIN = {"provider": "Builtin", "minReplicas": 0, "maxReplicas": 3}


@pytest.mark.parametrize("networking", [{}, {"frontDoor": "Auto"}, ON])
def test_who_scales_by_the_door_has_one(networking: dict[str, Any]) -> None:
    assert planned(device="cpu", autoscaling=BUILTIN, networking=networking).door is not None


@pytest.mark.parametrize(
    ("networking", "word"), [({"frontDoor": "Off"}, "Builtin"), ({"inferencePool": PICKER}, "inferencePool")]
)
def test_who_scales_by_the_door_cannot_do_without(networking: dict[str, Any], word: str) -> None:
    [problem] = check_spec(make_spec(device="cpu", autoscaling=BUILTIN, networking=networking))

    assert problem.startswith("spec.networking.frontDoor") and word in problem


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 600),
        ({"holdSeconds": 20}, 20),
        ({"holdSeconds": 9000}, 600),
        ({"holdSeconds": 0}, None),
        ({"minReplicas": 1}, None),
    ],
)
def test_a_door_holds_what_comes_while_there_is_no_pod(changes: dict[str, Any], seconds: int | None) -> None:
    files = child("ConfigMap", "chat-front-door", device="cpu", autoscaling=BUILTIN | changes)["data"]

    assert ("hold.lua" in files) == (seconds is not None)
    assert ("lua-load /usr/local/etc/haproxy/hold.lua" in files["first.cfg"]) == (seconds is not None)
    if seconds is not None:
        assert files["hold.lua"].startswith(f"local MOST, SECONDS, SILENT, LOOK = 256, {seconds}, ")


def test_the_operator_owns_the_replicas_that_it_scales() -> None:
    pools = [{"name": "a"}, {"name": "b", "costPerHour": 2.5}]
    spec = {"device": "cpu", "gpuPools": pools, "autoscaling": BUILTIN | {"minReplicas": 1}}
    live = make_observed(children=dict([live_pool("chat-a", 3), live_pool("chat-b", 9)]))
    asked = replace(live, scaling=Scaling({"a": 0, "b": 2}))

    assert [pool.replicas for pool in planned(**spec).pools] == [1, 1]
    assert [pool.replicas for pool in planned(live, **spec).pools] == [3, 3]
    assert [pool.replicas for pool in planned(asked, **spec).pools] == [1, 2]
    assert not [each for each in render_resource(make_resource(**spec)) if each["kind"] == "ScaledObject"]


def live_pool(name: str, replicas: int) -> tuple[ChildKey, Manifest]:
    return live("Deployment", name, spec={"replicas": replicas}, status={})
