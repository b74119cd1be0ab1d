"""Who gets in without a key, and what the status says when no key is left."""

from __future__ import annotations

import json
import sys

import pytest

from tests.cluster.cluster import Cluster, CommandError, run
from tests.cluster.resources import Fields, Objects, Serving, eventually
from tests.cluster.serving import SMALL

pytestmark = pytest.mark.cluster

START_SECONDS = 120.0
SYNC_SECONDS = 120.0  # a kubelet brings a changed Secret within a minute and a half
KEY = "a-key-of-the-test"
AUTH = {"device": "cpu", "auth": {"apiKeysSecret": {"name": "chat-keys"}}}
STATUSES = """
import json, sys, urllib.error, urllib.request
found = {}
for url in json.loads(sys.argv[1]):
    request = urllib.request.Request(url, headers=json.loads(sys.argv[2]))
    try:
        found[url] = urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        found[url] = error.code
print(json.dumps(found))
"""


def statuses(cluster: Cluster, serving: Serving, urls: list[str], key: str = "") -> dict[str, int]:
    """What a pod of the resource answers to itself."""
    [pod] = serving.pods()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    where = ("exec", pod["metadata"]["name"], "-n", serving.objects.namespace or "", "--")
    arguments = (json.dumps(urls), json.dumps(headers))
    said = cluster.kubectl(*where, "/opt/dllm/bin/python", "-c", STATUSES, *arguments)
    found: dict[str, int] = json.loads(said)
    return found


def watch(cluster: Cluster, serving: Serving, key: str = "") -> str:
    """A screen of ``dllm top``, from outside the cluster."""
    command = [sys.executable, "-m", "dllm_server.cli", "top", "--deployment", serving.name, "--once"]
    variables = cluster.env | {"DLLM_TOP_API_KEY": key, "COLUMNS": "200"}
    return run([*command, "--namespace", serving.objects.namespace or ""], variables)


def write_keys(objects: Objects, serving: Serving, keys: str) -> None:
    """Into the Secret, and have the kubelets look at once: they do when a pod changes."""
    objects.patch("Secret", "chat-keys", {"stringData": {"keys": keys}})
    for pod in serving.pods():
        annotations = {"keys": f"of {len(keys)} characters"}
        objects.patch("Pod", pod["metadata"]["name"], {"metadata": {"annotations": annotations}})


def make_secret(objects: Objects, keys: str) -> None:
    metadata = {"name": "chat-keys"}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"keys": keys}}
    objects.create(body)


def test_all_but_probes_and_the_metrics_port_asks_for_a_key(cluster: Cluster, objects: Objects) -> None:
    make_secret(objects, KEY)
    serving = Serving.create(objects, "guarded", SMALL, AUTH)
    serving.wait_ready(START_SECONDS)
    api, metrics = "http://127.0.0.1:8000", "http://127.0.0.1:9464"
    guarded = [f"{api}/{path}" for path in ("v1/models", "version", "docs", "redoc", "openapi.json")]
    probes, absent = [f"{api}/health", f"{api}/ready"], f"{api}/metrics"

    without = statuses(
        cluster, serving, [*guarded, *probes, absent, f"{metrics}/metrics", f"{metrics}/version"]
    )
    with_key = statuses(cluster, serving, [*guarded, absent], KEY)
    watched = watch(cluster, serving, KEY)

    assert without == {
        **dict.fromkeys([*guarded, absent], 401),
        **dict.fromkeys(probes, 200),
        f"{metrics}/metrics": 200,
        f"{metrics}/version": 404,
    }
    assert with_key == dict.fromkeys(guarded, 200) | {absent: 404}
    assert "dllm-embedded on cpu" in watched
    with pytest.raises(CommandError, match="401: give a key"):
        watch(cluster, serving)


def test_a_secret_without_a_key_is_said_in_the_status_until_there_is_one(
    cluster: Cluster, objects: Objects
) -> None:
    make_secret(objects, "")
    serving = Serving.create(objects, "keyless", SMALL, AUTH)

    at_start = eventually(lambda: check_said(serving), START_SECONDS)
    write_keys(objects, serving, KEY)
    serving.wait_ready(SYNC_SECONDS)
    write_keys(objects, serving, "")
    lapsed = serving.wait_reason("Ready", "PodsNotReady", SYNC_SECONDS)
    refused = statuses(cluster, serving, ["http://127.0.0.1:8000/v1/models"], KEY)
    write_keys(objects, serving, KEY)
    serving.wait_ready(SYNC_SECONDS)

    assert (at_start["status"], at_start["reason"]) == ("False", "PodsStarting")
    assert "Secret chat-keys may hold no API key under 'keys'" in lapsed["message"]
    assert lapsed["status"] == "False"
    assert list(refused.values()) == [401]
    assert serving.events("PodsNotReady")[0]["type"] == "Warning"
    [pod] = serving.pods()
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


def check_said(serving: Serving) -> Fields:
    condition = serving.condition("Ready")
    assert "Secret chat-keys may hold no API key under 'keys'" in condition["message"], condition
    return condition
