"""The author of a resource against the operator: what a status gives away, and whose names are taken.

The author may edit DLLMDeployments and read them and their Events, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from dllm_operator.api.v1alpha1 import API_VERSION, KIND
from kubernetes.client.exceptions import ApiException

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import RELEASE_NAMESPACE
from tests.cluster.resources import Fields, Manifest, Objects, Serving, eventually
from tests.cluster.serving import SMALL
from tests.cluster.simulated_nodes import SimulatedNodes, on_node

pytestmark = pytest.mark.cluster

NODE = "simulated-security"
SIMULATED: Fields = {"device": "cpu", "podTemplate": on_node(NODE)}
SECRET = "hunter2"
VICTIM = "victim"
REFERENCE: Fields = {"secretKeyRef": {"name": VICTIM, "key": "password"}}
CONTAINER_SECONDS = 180.0
REPORTED_SECONDS = 30.0
QUOTA_SECONDS = 60.0  # until a quota that was dropped is no longer counted


@pytest.fixture(scope="module")
def nodes(standing_nodes: SimulatedNodes) -> SimulatedNodes:
    standing_nodes.add(NODE)
    return standing_nodes


@pytest.fixture(scope="module")
def objects(operator: object, cluster: Cluster, nodes: SimulatedNodes) -> Iterator[Objects]:
    with cluster.temporary_namespace("security") as name:
        objects = Objects(cluster, name)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": VICTIM}}
        objects.create(secret | {"stringData": {"password": SECRET}})
        yield objects


def refusal(objects: Objects, name: str, *variables: Fields) -> str:
    spec = {"model": {"source": "embedded"}, "podTemplate": {"env": list(variables)}}
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
    with pytest.raises(ApiException) as refused:
        objects.create(body)
    return str(json.loads(refused.value.body)["message"])


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("DLLM_MAX_NUM_SEQS", "spec.engine.maxNumSeqs"),
        ("dllm_max_num_seqs", "spec.engine.maxNumSeqs"),
        ("DLLM_SHUTDOWN_GRACE_SECONDS", "spec.networking.requestTimeoutSeconds"),
        ("DLLM_SERVED_MODEL_NAME", "spec.model.servedName"),
        ("DLLM_TERMINATION_LOG", "nothing: the operator chooses it"),
        ("HF_TOKEN", "spec.model.tokenSecret"),
        ("HF_HOME", "spec.model.cache"),
    ],
)
def test_a_setting_of_the_operators_cannot_be_taken_from_a_secret(
    objects: Objects, name: str, field: str
) -> None:
    said = refusal(objects, "setting", {"name": name, "valueFrom": REFERENCE})

    assert f"env '{name}' is set by the operator itself: remove it and use {field}" in said


def test_no_setting_of_the_server_can_be_taken_from_a_secret(objects: Objects) -> None:
    name = "DLLM_MAX_QUEUED_REQUESTS"
    indirect = ({"name": "P", "valueFrom": REFERENCE}, {"name": name, "value": "$(P)"})

    for variables in (({"name": name, "valueFrom": REFERENCE},), indirect):
        said = refusal(objects, "setting", *variables)
        assert f"env '{name}' takes a setting of the server from elsewhere" in said


CHANNELS: dict[str, Fields] = {
    "a variable of Python's": {"env": [{"name": "PYTHONHOME", "valueFrom": REFERENCE}]},
    "a number that is none": {"env": [{"name": "HF_HUB_DOWNLOAD_TIMEOUT", "valueFrom": REFERENCE}]},
    "the address of the hub": {"env": [{"name": "HF_ENDPOINT", "valueFrom": REFERENCE}]},
    "the start of another program": {"env": [{"name": "LD_PRELOAD", "valueFrom": REFERENCE}]},
}


@pytest.fixture(scope="module")
def leaking(objects: Objects) -> dict[str, Serving]:
    """Real containers that fail at the same time."""
    made = {}
    for number, (channel, template) in enumerate(CHANNELS.items()):
        spec = {"model": {"source": "nobody/absent"}, "device": "cpu"}
        made[channel] = Serving.create(objects, f"leak-{number}", spec, SMALL, {"podTemplate": template})
    return made


@pytest.mark.parametrize("channel", CHANNELS)
def test_what_a_container_says_of_a_secret_stays_in_its_log(
    cluster: Cluster, objects: Objects, leaking: dict[str, Serving], channel: str
) -> None:
    serving = leaking[channel]

    def has_failed() -> None:
        assert serving.condition("Ready")["reason"] in ("CrashLoop", "StartFailed"), serving.status()

    eventually(has_failed, CONTAINER_SECONDS)

    seen = json.dumps([serving.read(), serving.pods(), objects.list("Event")])
    assert SECRET not in seen
    assert SECRET not in operator_log(cluster)
    serving.delete()


def operator_log(cluster: Cluster) -> str:
    chosen = ("-l", "app.kubernetes.io/name=dllm-operator", "--tail=2000")
    return cluster.kubectl("logs", "-n", RELEASE_NAMESPACE, *chosen)


def container_says(serving: Serving, text: str, exit_code: int = 1) -> None:
    """Ends the only pod's container as its kubelet would tell, with that termination message."""
    serving.wait_ready()
    (pod,) = serving.pods()
    (before,) = pod["status"]["containerStatuses"]
    ended = {"exitCode": exit_code, "reason": "Error", "message": text}
    waiting = {"reason": "CrashLoopBackOff", "message": f"back-off {text}"}
    broken = before | {
        "ready": False,
        "restartCount": 3,
        "state": {"running": None, "waiting": waiting},
        "lastState": {"terminated": ended},
    }
    conditions = [
        each | ({"status": "False"} if each["type"] in ("Ready", "ContainersReady") else {})
        for each in pod["status"]["conditions"]
    ]
    body = {"status": {"conditions": conditions, "containerStatuses": [broken]}}
    serving.objects.patch("Pod", pod["metadata"]["name"], body, "status")


@pytest.mark.parametrize(
    ("name", "text", "exit_code", "reason", "told"),
    [
        ("plain", f"got {SECRET}", 1, "CrashLoop", "the container's log says why"),
        (
            "message",
            json.dumps({"reason": "StartFailed", "message": SECRET, "exit_code": 1}),
            1,
            "StartFailed",
            "the server cannot start: the server's log has more",
        ),
        (
            "cause",
            json.dumps({"reason": "BudgetExceeded", "cause": SECRET, "numbers": {SECRET: 1}, "exit_code": 1}),
            1,
            "StartFailed",
            "the settings do not fit the device",
        ),
        (
            "setting",
            json.dumps(
                {
                    "reason": "StartFailed",
                    "cause": "Setting",
                    "setting": SECRET,
                    "numbers": {},
                    "exit_code": 1,
                }
            ),
            1,
            "StartFailed",
            "the server cannot start",
        ),
        ("memory", SECRET, 86, "CUDAOutOfMemory", "the device ran out of memory"),
    ],
)
def test_a_hostile_image_cannot_speak_through_its_termination_log(
    cluster: Cluster, objects: Objects, name: str, text: str, exit_code: int, reason: str, told: str
) -> None:
    serving = Serving.create(objects, f"says-{name}", SIMULATED)

    container_says(serving, text, exit_code)

    ready = serving.wait_reason("Ready", reason, REPORTED_SECONDS)
    assert told in ready["message"]
    told_events = [e for e in objects.list("Event") if e["involvedObject"]["kind"] == KIND]
    assert SECRET not in json.dumps([serving.read(), told_events])
    assert SECRET not in operator_log(cluster)
    serving.delete()


def account(name: str, **metadata: object) -> Manifest:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, **metadata}}


def test_an_account_of_somebody_else_stops_the_resource_before_anything_is_made(objects: Objects) -> None:
    foreign = objects.create(account("taken-dllm"))
    serving = Serving.create(objects, "taken", SIMULATED)

    ready = serving.wait_reason("Ready", "NameConflict", REPORTED_SECONDS)

    assert "ServiceAccount taken-dllm exists and does not belong to this DLLMDeployment" in ready["message"]
    assert serving.children() == set()
    assert serving.events("NameConflict")
    assert objects.get("ServiceAccount", "taken-dllm")["metadata"]["uid"] == foreign["metadata"]["uid"]
    assert "ownerReferences" not in objects.get("ServiceAccount", "taken-dllm")["metadata"]
    objects.delete("ServiceAccount", "taken-dllm")
    serving.wait_ready()
    serving.delete()


def test_pods_run_as_an_account_of_the_resources_own_whatever_bears_its_name(objects: Objects) -> None:
    objects.create(account("powerful"))
    serving = Serving.create(objects, "powerful", SIMULATED)

    serving.wait_ready()

    (pod,) = serving.pods()
    assert pod["spec"]["serviceAccountName"] == "powerful-dllm"
    assert not [volume for volume in pod["spec"]["volumes"] if "projected" in volume]
    own = objects.get("ServiceAccount", "powerful-dllm")
    assert own["automountServiceAccountToken"] is False
    assert own["metadata"]["ownerReferences"][0]["uid"] == serving.read()["metadata"]["uid"]
    serving.delete()
    eventually(lambda: check_gone(objects, "powerful-dllm"), 60.0)
    assert objects.find("ServiceAccount", "powerful") is not None


def check_gone(objects: Objects, name: str) -> None:
    assert objects.find("ServiceAccount", name) is None


def test_an_account_that_is_exchanged_under_a_resource_stops_its_changes(objects: Objects) -> None:
    serving = Serving.create(objects, "exchanged", SIMULATED)
    serving.wait_ready()
    before = serving.deployment()["metadata"]["generation"]
    labels = objects.get("ServiceAccount", "exchanged-dllm")["metadata"]["labels"]
    serving.edit({"replicas": 0})
    eventually(lambda: check_pods(serving, 0))
    while True:  # against the operator, which makes its own again at once
        objects.delete("ServiceAccount", "exchanged-dllm")
        try:
            objects.create(account("exchanged-dllm", labels=labels))
            break
        except ApiException as error:
            assert error.status == 409

    serving.edit({"replicas": 2})

    progressing = serving.wait_reason("Progressing", "NameConflict", REPORTED_SECONDS)
    assert "ServiceAccount exchanged-dllm" in progressing["message"]
    assert serving.deployment()["spec"]["replicas"] == 0
    assert serving.deployment()["metadata"]["generation"] > before
    assert serving.pods() == []
    objects.delete("ServiceAccount", "exchanged-dllm")
    serving.wait_ready()
    serving.delete()


def check_pods(serving: Serving, count: int) -> None:
    assert len(serving.pods()) == count


def test_the_account_of_an_older_operator_goes_when_no_pod_uses_it(objects: Objects) -> None:
    serving = Serving.create(objects, "older", SIMULATED)
    serving.wait_ready()
    own = objects.get("ServiceAccount", "older-dllm")["metadata"]

    objects.create(account("older", labels=own["labels"], ownerReferences=own["ownerReferences"]))

    eventually(lambda: check_gone(objects, "older"))
    serving.delete()


WRONG: dict[str, tuple[Fields, str]] = {
    "label": ({"labels": {"not a key!": "x"}}, 'spec.template.labels: Invalid value: "not a key!"'),
    "annotation": ({"annotations": {"not a key!": "x"}}, "spec.template.annotations: Invalid value"),
    "resource": ({"resources": {"requests": {"nonsense": 1}}}, "must be a standard resource type"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_api_server_refuses_in_a_child_is_found_before_anything_is_made(
    objects: Objects, name: str
) -> None:
    template, words = WRONG[name]
    serving = Serving.create(objects, f"wrong-{name}", SIMULATED, {"podTemplate": template})

    valid = serving.wait_reason("SpecValid", "InvalidSpec", REPORTED_SECONDS)

    assert words in valid["message"]
    assert serving.condition("Ready")["reason"] == "InvalidSpec"
    assert serving.children() == set()
    serving.edit({"podTemplate": dict.fromkeys(template)})
    serving.wait_ready()
    assert serving.condition("SpecValid")["status"] == "True"
    serving.delete()


def test_an_edit_that_the_api_server_refuses_changes_nothing_of_what_runs(objects: Objects) -> None:
    serving = Serving.create(objects, "edited", SIMULATED)
    serving.wait_ready()
    before = {key: objects.get(*key)["metadata"]["resourceVersion"] for key in serving.children()}

    serving.edit(
        {
            "networking": {"port": 9000, "networkPolicy": {"enabled": False}},
            "podTemplate": {"annotations": {"not a key!": "x"}},
        }
    )

    valid = serving.wait_reason("SpecValid", "InvalidSpec", REPORTED_SECONDS)
    assert "spec.template.annotations" in valid["message"]
    assert serving.condition("Ready")["status"] == "True"
    assert {key: objects.get(*key)["metadata"]["resourceVersion"] for key in serving.children()} == before
    serving.edit({"podTemplate": {"annotations": None}})
    serving.wait_ready()
    assert ("NetworkPolicy", "edited") not in serving.children()
    serving.delete()


def test_a_quota_is_no_fault_of_the_spec(cluster: Cluster, objects: Objects, nodes: SimulatedNodes) -> None:
    with cluster.temporary_namespace("quota") as namespace:
        poor = Objects(cluster, namespace)
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
        cluster.apply(quota | {"spec": {"hard": {"count/services": "0"}}}, namespace)
        cluster.wait_for("the quota counts", lambda: has_status(cluster, namespace))
        serving = Serving.create(poor, "poor", SIMULATED)

        ready = serving.wait_reason("Ready", "ApplyFailed", REPORTED_SECONDS)

        assert "exceeded quota: none" in ready["message"]
        assert serving.condition("SpecValid")["status"] == "True"
        assert serving.children() == set()
        cluster.kubectl("delete", "resourcequota", "none", "-n", namespace)
        serving.wait_ready(QUOTA_SECONDS)


def has_status(cluster: Cluster, namespace: str) -> bool:
    live = cluster.get("resourcequota", "none", namespace)
    return live is not None and "hard" in live.get("status", {})
