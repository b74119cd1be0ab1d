"""The author of a resource against all others: what is read, taken over, opened, escaped from or exhausted.

The author holds the chart's two user roles in one namespace and nothing else; tests look with an
administrator's eyes. ``test_keys.py`` tries the API without a key, ``test_policies.py`` all of the limits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from dllm_operator.api.pod_template import RESERVED_LABELS
from dllm_operator.api.v1alpha1 import API_VERSION, KIND
from dllm_operator.cluster.labels import INSTANCE, MANAGED_BY, MANAGER
from dllm_operator.cluster.text import readable
from kubernetes.client.exceptions import ApiException

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import RELEASE_NAMESPACE
from tests.cluster.resources import Fields, Manifest, Objects, Serving, eventually, merged
from tests.cluster.serving import SMALL
from tests.cluster.simulated_nodes import SimulatedNodes, on_node

pytestmark = pytest.mark.cluster

NODE = "simulated-red-team"
SIMULATED: Fields = {"device": "cpu", "podTemplate": on_node(NODE)}
SECRET = "hunter2"
VICTIM = "victim"
REFERENCE: Fields = {"secretKeyRef": {"name": VICTIM, "key": "password"}}
CONTAINER_SECONDS = 180.0
REPORTED_SECONDS = 90.0
MOST_STATUS_CHARACTERS = 50_000
ACTIVE_SECONDS = 60.0  # in which the API server takes up roles and policies


@pytest.fixture(scope="module")
def nodes(standing_nodes: SimulatedNodes) -> SimulatedNodes:
    standing_nodes.add(NODE)
    return standing_nodes


@pytest.fixture(scope="module")
def objects(operator: object, cluster: Cluster, nodes: SimulatedNodes) -> Iterator[Objects]:
    with cluster.temporary_namespace("red-team") as name:
        objects = Objects(cluster, name)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": VICTIM}}
        objects.create(secret | {"stringData": {"password": SECRET}})
        yield objects


@pytest.fixture(scope="module")
def token(cluster: Cluster, objects: Objects) -> str:
    """Of an account that is bound to the two user roles in the tests' namespace alone."""
    namespace = objects.namespace or ""
    objects.create(account("author"))
    for verb in ("view", "edit"):
        role = f"--clusterrole={RELEASE_NAMESPACE}:dllm-operator:{verb}"
        subject = f"--serviceaccount={namespace}:author"
        cluster.kubectl("create", "rolebinding", f"author-{verb}", "-n", namespace, role, subject)
    return cluster.kubectl("create", "token", "author", "-n", namespace, "--duration=2h").strip()


@pytest.fixture(scope="module")
def author(cluster: Cluster, objects: Objects, token: str) -> Objects:
    author = Objects(cluster, objects.namespace, token)
    eventually(lambda: check_may_read(author), ACTIVE_SECONDS)
    return author


def check_may_read(author: Objects) -> None:
    try:
        author.list(KIND)
    except ApiException as error:
        raise AssertionError(error.body) from error


def made_by(author: Objects, objects: Objects, name: str, *specs: Fields) -> Serving:
    """The author's resource as an administrator sees it."""
    Serving.create(author, name, *specs)
    return Serving(objects, name)


def refusal(author: Objects, *specs: Fields, status: int = 422) -> str:
    spec = merged({"model": {"source": "embedded"}}, *specs)
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "refused"}, "spec": spec}
    with pytest.raises(ApiException) as refused:
        author.create(body)
    assert refused.value.status == status, refused.value.body
    return str(json.loads(refused.value.body)["message"])


def env(*variables: Fields) -> Fields:
    return {"podTemplate": {"env": list(variables)}}


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
    author: Objects, name: str, field: str
) -> None:
    said = refusal(author, env({"name": name, "valueFrom": REFERENCE}))

    assert f"env '{name}' is set by the operator itself: remove it and use {field}" in said


def test_no_setting_of_the_server_can_be_taken_from_a_secret(author: Objects) -> None:
    name = "DLLM_MAX_QUEUED_REQUESTS"
    indirect = ({"name": "P", "valueFrom": REFERENCE}, {"name": name, "value": "$(P)"})

    for variables in (({"name": name, "valueFrom": REFERENCE},), indirect):
        said = refusal(author, env(*variables))
        assert f"env '{name}' takes a setting of the server from elsewhere" in said


CHANNELS: dict[str, Fields] = {
    "a variable of Python's": {"env": [{"name": "PYTHONHOME", "valueFrom": REFERENCE}]},
    "a number that is none": {"env": [{"name": "HF_HUB_DOWNLOAD_TIMEOUT", "valueFrom": REFERENCE}]},
    "the address of the hub": {"env": [{"name": "HF_ENDPOINT", "valueFrom": REFERENCE}]},
    "the start of another program": {"env": [{"name": "LD_PRELOAD", "valueFrom": REFERENCE}]},
}


@pytest.fixture(scope="module")
def leaking(author: Objects, objects: Objects) -> dict[str, Serving]:
    """Real containers that fail at the same time."""
    made = {}
    for number, (channel, template) in enumerate(CHANNELS.items()):
        spec = {"model": {"source": "nobody/absent"}, "device": "cpu"}
        spec |= {"podTemplate": template}
        made[channel] = made_by(author, objects, f"leak-{number}", SMALL, spec)
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
    cluster: Cluster,
    author: Objects,
    objects: Objects,
    name: str,
    text: str,
    exit_code: int,
    reason: str,
    told: str,
) -> None:
    serving = made_by(author, objects, f"says-{name}", SIMULATED)

    container_says(serving, text, exit_code)

    ready = serving.wait_reason("Ready", reason, REPORTED_SECONDS)
    assert told in ready["message"]
    told_events = [e for e in objects.list("Event") if e["involvedObject"]["kind"] == KIND]
    assert SECRET not in json.dumps([serving.read(), told_events])
    assert SECRET not in operator_log(cluster)
    serving.delete()


def account(name: str, **metadata: object) -> Manifest:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, **metadata}}


def owned(name: str) -> Fields:
    """Labels of what the operator has made for that resource."""
    return {INSTANCE: name, MANAGED_BY: MANAGER}


POD: Fields = {
    "metadata": {"labels": {"app": "victim"}},
    "spec": {"containers": [{"name": "a", "image": "a"}]},
}
VICTIMS = {"matchLabels": {"app": "victim"}}
TAKEN: dict[str, tuple[str, str, Fields]] = {
    "ServiceAccount": ("-dllm", "v1", {}),
    "Service": ("", "v1", {"spec": {"selector": {"app": "victim"}, "ports": [{"port": 80}]}}),
    "NetworkPolicy": ("", "networking.k8s.io/v1", {"spec": {"podSelector": VICTIMS}}),
    "PodDisruptionBudget": ("", "policy/v1", {"spec": {"maxUnavailable": 1, "selector": VICTIMS}}),
    "ConfigMap": ("-cpu-tuning", "v1", {"data": {"a": "b"}}),
    "Deployment": ("-cpu", "apps/v1", {"spec": {"replicas": 0, "selector": VICTIMS, "template": POD}}),
    "PersistentVolumeClaim": (
        "-cache",
        "v1",
        {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
    ),
}


@pytest.fixture(scope="module")
def thefts(author: Objects, objects: Objects) -> dict[str, tuple[Serving, Manifest]]:
    """A resource for each kind whose child of it has a name that is somebody else's, and what that one has.
    Labels say that it is the operator's; anybody could set them."""
    made = {}
    cached = {"model": {"source": "nobody/absent", "cache": {"size": "1Gi"}}}
    for kind, (suffix, version, content) in TAKEN.items():
        name = f"taken-{kind.lower()}"
        metadata = {"name": name + suffix, "labels": owned(name)}
        foreign = objects.create({"apiVersion": version, "kind": kind, "metadata": metadata, **content})
        serving = made_by(author, objects, name, SIMULATED, cached)
        made[kind] = serving, foreign
    return made


@pytest.mark.parametrize("kind", TAKEN)
def test_a_name_of_somebody_elses_stops_the_resource_before_anything_is_made(
    objects: Objects, thefts: dict[str, tuple[Serving, Manifest]], kind: str
) -> None:
    serving, foreign = thefts[kind]
    name = foreign["metadata"]["name"]

    ready = serving.wait_reason("Ready", "NameConflict", REPORTED_SECONDS)

    assert f"{kind} {name} exists and does not belong to this DLLMDeployment" in ready["message"]
    assert serving.children() == {(kind, name)}
    assert serving.events("NameConflict")
    live = objects.get(kind, name)
    assert live["metadata"]["uid"] == foreign["metadata"]["uid"]
    assert "ownerReferences" not in live["metadata"]
    assert [entry for entry in live["metadata"]["managedFields"] if entry["manager"] == MANAGER] == []
    serving.delete()
    objects.delete(kind, name)


def test_a_resource_goes_on_once_the_name_is_free(author: Objects, objects: Objects) -> None:
    objects.create(account("freed-dllm"))
    serving = made_by(author, objects, "freed", SIMULATED)
    serving.wait_reason("Ready", "NameConflict", REPORTED_SECONDS)

    objects.delete("ServiceAccount", "freed-dllm")

    serving.wait_ready()
    serving.delete()


def test_pods_run_as_an_account_of_the_resources_own_whatever_bears_its_name(
    author: Objects, objects: Objects
) -> None:
    objects.create(account("powerful"))
    serving = made_by(author, objects, "powerful", SIMULATED)

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


def test_an_account_that_is_exchanged_under_a_resource_stops_its_changes(
    author: Objects, objects: Objects
) -> None:
    serving = made_by(author, objects, "exchanged", SIMULATED)
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


def test_the_account_of_an_older_operator_goes_when_no_pod_uses_it(author: Objects, objects: Objects) -> None:
    serving = made_by(author, objects, "older", SIMULATED)
    serving.wait_ready()
    own = objects.get("ServiceAccount", "older-dllm")["metadata"]

    objects.create(account("older", labels=own["labels"], ownerReferences=own["ownerReferences"]))

    eventually(lambda: check_gone(objects, "older"))
    serving.delete()


ELSEWHERE: dict[str, tuple[Fields, str]] = {
    "keys of another namespace": (
        {"auth": {"apiKeysSecret": {"name": "dllm-system/victim"}}},
        "spec.auth.apiKeysSecret.name",
    ),
    "a token of another namespace": (
        {"model": {"source": "org/model", "tokenSecret": {"name": "dllm-system/victim"}}},
        "spec.model.tokenSecret.name",
    ),
    "a variable of another namespace": (
        env({"name": "A", "valueFrom": {"secretKeyRef": {"name": "dllm-system/victim", "key": "a"}}}),
        "secretKeyRef.name",
    ),
    "a claim of another namespace": (
        {"model": {"source": "org/model", "cache": {"claimName": "dllm-system/weights"}}},
        "spec.model.cache.claimName",
    ),
    "a directory above the claim": ({"model": {"source": "pvc://weights/../../etc"}}, "leaves its directory"),
    "a directory of the host": ({"model": {"source": "/etc/kubernetes"}}, "is not a model"),
    "a directory without a claim": ({"model": {"source": "pvc:///etc"}}, "is not a model"),
    "a server with credentials": (
        {"model": {"source": "https://user:password@evil.example/model"}},
        "is not a model",
    ),
    "another file of keys": (
        env({"name": "DLLM_API_KEYS_FILE", "value": "/dev/null"}),
        "use spec.auth.apiKeysSecret",
    ),
    "metrics on another port": (
        env({"name": "dllm_metrics_port", "value": "8080"}),
        "nothing: the operator chooses it",
    ),
} | {
    f"a label {name}": (
        {"podTemplate": {"labels": {name: "victim"}}},
        "that the operator selects its pods by",
    )
    for name in RESERVED_LABELS
}


@pytest.mark.parametrize("attack", ELSEWHERE)
def test_what_is_outside_of_the_resource_cannot_be_named(author: Objects, attack: str) -> None:
    spec, words = ELSEWHERE[attack]

    assert words in refusal(author, spec)


ESCAPES: Fields = {
    "hostNetwork": True,
    "hostPID": True,
    "serviceAccountName": "powerful",
    "automountServiceAccountToken": True,
    "securityContext": {"runAsUser": 0, "privileged": True},
    "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
    "volumeMounts": [{"name": "host", "mountPath": "/host"}],
    "initContainers": [{"name": "root", "image": "evil.example/root"}],
    "containers": [{"name": "engine", "image": "evil.example/root"}],
    "command": ["/bin/sh"],
    "args": ["-c", "id"],
}


def test_no_field_of_a_pod_beyond_the_template_gets_through(author: Objects, objects: Objects) -> None:
    serving = made_by(author, objects, "escape", SIMULATED, {"podTemplate": ESCAPES})

    serving.wait_ready()

    assert serving.read()["spec"]["podTemplate"].keys().isdisjoint(ESCAPES)
    (pod,) = serving.pods()
    spec = pod["spec"]
    (container,) = spec["containers"]
    assert spec.keys().isdisjoint({"hostNetwork", "hostPID", "hostIPC", "initContainers"})
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("escape-dllm", False)
    assert {field for volume in spec["volumes"] for field in volume} == {"name", "emptyDir", "configMap"}
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert (container["args"], "command" in container) == (["serve"], False)
    serving.delete()


def test_a_text_of_the_author_refers_to_no_variable(author: Objects, objects: Objects) -> None:
    """A served name is told to every client."""
    model = {"source": "org/model", "servedName": "$(HF_TOKEN)", "revision": "$(HF_TOKEN)"}
    stolen = {"tokenSecret": {"name": VICTIM, "key": "password"}}
    serving = made_by(author, objects, "variable", SIMULATED, {"model": model | stolen})

    serving.wait_ready()

    found = serving.environment()
    assert (found["DLLM_SERVED_MODEL_NAME"], found["DLLM_REVISION"]) == ("$$(HF_TOKEN)",) * 2
    serving.delete()


def test_a_status_of_the_authors_making_is_not_taken(author: Objects, objects: Objects) -> None:
    forged = {"managedBy": "evil/lease", "url": "http://evil.example", "observedGeneration": 99}
    spec = merged({"model": {"source": "embedded"}}, SIMULATED)
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "forged"}, "spec": spec}
    author.create(body | {"status": forged})
    serving = Serving(objects, "forged")
    serving.wait_ready()

    author.patch(KIND, "forged", {"status": forged})
    with pytest.raises(ApiException) as refused:
        author.patch(KIND, "forged", {"status": forged}, "status")

    assert refused.value.status == 403
    status = serving.status()
    assert [name for name in forged if status[name] == forged[name]] == []
    serving.delete()


def test_labels_and_owners_of_a_resource_touch_nothing_of_another(author: Objects, objects: Objects) -> None:
    victim = Serving.create(objects, "owner", SIMULATED)
    victim.wait_ready()
    children = {key: objects.get(*key)["metadata"]["uid"] for key in victim.children()}
    reference = {"apiVersion": API_VERSION, "kind": KIND, "name": "owner", "controller": True}
    reference |= {"uid": victim.read()["metadata"]["uid"]}
    metadata = {"name": "intruder", "labels": owned("owner"), "ownerReferences": [reference]}
    spec = merged({"model": {"source": "embedded"}}, SIMULATED, {"replicas": 0})
    author.create({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec})
    intruder = Serving(objects, "intruder")
    intruder.wait_reason("Ready", "ScaledToZero", REPORTED_SECONDS)

    author.delete(KIND, "intruder")

    eventually(lambda: check_childless(intruder), ACTIVE_SECONDS)
    assert {key: objects.get(*key)["metadata"]["uid"] for key in victim.children()} == children
    victim.wait_ready()
    victim.delete()


def check_childless(serving: Serving) -> None:
    assert serving.children() == set()


@pytest.mark.parametrize("kind", ["Secret", "Pod", "ConfigMap", "Deployment", "ServiceAccount", "Event"])
def test_the_author_reads_nothing_but_resources(author: Objects, kind: str) -> None:
    with pytest.raises(ApiException) as refused:
        author.list(kind)

    assert refused.value.status == 403


def test_the_author_has_no_resource_in_another_namespace(cluster: Cluster, token: str) -> None:
    assert "forbidden" in refusal(Objects(cluster, RELEASE_NAMESPACE, token), status=403)


ENDLESS: dict[str, Fields] = {
    "a limit": {"podTemplate": {"resources": {"limits": {"cpu": "1e999999999"}}}},
    "a limit above a request": {
        "podTemplate": {"resources": {"limits": {"cpu": "1e999999999"}, "requests": {"cpu": "1"}}}
    },
    "a fraction": {
        "podTemplate": {"resources": {"limits": {"cpu": "1e-999999999"}, "requests": {"cpu": "1"}}}
    },
    "a limit of a pool": {
        "gpuPools": [{"name": "a", "resources": {"limits": {"cpu": "1e999999999"}, "requests": {"cpu": "1"}}}]
    },
    "a cache": {"model": {"source": "org/model", "cache": {"size": "1e-999999999"}}},
    "a divisor": env(
        {
            "name": "A",
            "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1e-999999999"}},
        }
    ),
}


@pytest.mark.parametrize("attack", ENDLESS)
def test_no_quantity_keeps_the_api_server_or_the_operator_busy(author: Objects, attack: str) -> None:
    """Written out it has a billion digits: compared with anything, it takes longer than a request may."""
    assert "should match" in refusal(author, ENDLESS[attack])


FLOODS: dict[str, Fields] = {
    "more than the operator holds": {
        "env": [{"name": f"V{number}", "value": "x" * 20_000} for number in range(60)]
    },
    "keys that move a cursor": {
        "annotations": {
            f"\x1b[2J\u202e\u0007{number}" + "\N{GRINNING FACE}" * 100: "" for number in range(40)
        }
    },
}


@pytest.mark.parametrize("attack", FLOODS)
def test_a_flood_of_text_is_refused_in_a_short_and_readable_status(
    cluster: Cluster, author: Objects, objects: Objects, attack: str
) -> None:
    serving = made_by(author, objects, "flood", SIMULATED, {"podTemplate": FLOODS[attack]})

    valid = serving.wait_reason("SpecValid", "InvalidSpec", REPORTED_SECONDS)

    told = valid["message"] + "".join(event["message"] for event in serving.events("InvalidSpec"))
    assert told == readable(told)
    assert len(json.dumps(serving.status())) < MOST_STATUS_CHARACTERS
    assert serving.children() == set()
    serving.delete()


@pytest.fixture(scope="module")
def limited(cluster: Cluster, author: Objects, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The administrator's limits hold in the tests' namespace; the chart's other objects stay as they are."""
    values = {
        "watchNamespaces": [author.namespace],
        "server": {"image": "registry.example/serving/server"},
        "policies": {"allowedImages": ["registry.example/serving/"], "maxGpusPerNamespace": 1},
    }
    file = tmp_path_factory.mktemp("limits") / "values.json"
    file.write_text(json.dumps(values))
    chosen = ("-n", RELEASE_NAMESPACE, "-s", "templates/policies.yaml", "-f", str(file))
    rendered = cluster.helm("template", "limits", "charts/dllm-operator", *chosen)
    cluster.apply(rendered)
    try:
        eventually(lambda: check_limited(author), ACTIVE_SECONDS)
        yield
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=rendered)


def check_limited(author: Objects) -> None:
    for number, spec in enumerate(BEYOND.values()):
        name = f"limit-{number}"
        try:
            Serving.create(author, name, {"replicas": 0}, spec)
        except ApiException as error:
            assert error.status == 422, error.body
        else:
            author.delete(KIND, name)
            raise AssertionError(f"{spec} is admitted")


BEYOND: dict[str, Fields] = {
    "an image of somebody else": {"image": "evil.example/server"},
    "a program of a claim in place of the image's": env({"name": "PATH", "value": "/models/bin"}),
    "a library of a claim in the image's program": env({"name": "LD_PRELOAD", "value": "/models/evil.so"}),
    "a module of a claim in the image's program": env({"name": "PYTHONPATH", "value": "/models"}),
    "more GPUs than allowed": {"replicas": 2},
    "GPUs that are not counted": env({"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}),
}


@pytest.mark.parametrize("attack", BEYOND)
def test_the_limits_of_an_administrator_hold(author: Objects, limited: None, attack: str) -> None:
    said = refusal(author, {"replicas": 0}, BEYOND[attack])

    assert "ValidatingAdmissionPolicy" in said
