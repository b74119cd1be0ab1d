"""Weights on a volume: as the hub's client lays them out, read-only, for any user id."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dllm_server.models.source import EMBEDDED_DIRECTORY

from tests.cluster.cluster import Cluster, Manifest
from tests.cluster.conftest import Images
from tests.cluster.resources import Fields, Objects, Serving, eventually, merged
from tests.cluster.serving import SMALL, InClusterClient

pytestmark = pytest.mark.cluster

SDAR = Path(__file__).parents[1] / "fixtures" / "sdar"
NODE = "node-0"
CLAIM, FOLDER, COMMIT = "weights", "hub/models--example--model", "a" * 40
SERVED_SECONDS = 180.0
ANY_USER = 1_000_660_000
ON_NODE: Fields = {"podTemplate": {"nodeSelector": {"kubernetes.io/hostname": NODE}}}
SPEC = merged({"device": "cpu", "model": {"source": f"pvc://{CLAIM}/{FOLDER}"}}, SMALL, ON_NODE)


@pytest.fixture(scope="module")
def weights(cluster: Cluster) -> Iterator[Path]:
    """A directory that the nodes see as well, with the embedded model in the layout of the hub's cache,
    and a tiny SDAR."""
    if cluster.program is None:
        pytest.skip("only nodes of the program that the variable CLUSTER names see this machine's files")
    root = Path(tempfile.mkdtemp(prefix="dllm-weights-"))
    root.chmod(0o755)
    folder = root / FOLDER
    (snapshot := folder / "snapshots" / COMMIT).mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    for file in EMBEDDED_DIRECTORY.iterdir():
        shutil.copy(file, folder / "blobs" / file.name)
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    shutil.copytree(SDAR, root / "sdar")
    try:
        yield root
    finally:
        shutil.rmtree(root)


@pytest.fixture(autouse=True)
def claim(cluster: Cluster, objects: Objects, namespace: str, weights: Path) -> Iterator[None]:
    """The directory as one that every node may read."""
    everywhere = Objects(cluster)
    common: Fields = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    volume = {
        "capacity": {"storage": "1Gi"},
        "claimRef": {"namespace": namespace, "name": CLAIM},
        "hostPath": {"path": str(weights), "type": "Directory"},
    }
    wanted: Fields = {"resources": {"requests": {"storage": "1Gi"}}, "volumeName": namespace}
    everywhere.create(_manifest("PersistentVolume", namespace, common | volume))
    objects.create(_manifest("PersistentVolumeClaim", CLAIM, common | wanted))
    yield
    everywhere.delete("PersistentVolume", namespace)


def _manifest(kind: str, name: str, spec: Fields) -> Manifest:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def check_ready(objects: Objects, pod: str) -> None:
    conditions = objects.get("Pod", pod)["status"].get("conditions", ())
    assert {c["type"]: c["status"] for c in conditions}.get("Ready") == "True", conditions


def test_a_folder_of_the_hubs_cache_is_served_from_a_claim_for_any_user_id(objects: Objects) -> None:
    serving = Serving.create(objects, "cached", SPEC)
    serving.wait_ready(SERVED_SECONDS)

    # As OpenShift runs it: a user id that has no name and no home, its own group on what is mounted.
    template = serving.deployment()["spec"]["template"]["spec"]
    [container] = template["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    identity = {"runAsUser": ANY_USER, "runAsGroup": 0, "fsGroup": ANY_USER}
    nobody = template | {
        "containers": [container | {"env": [*container["env"], {"name": "HOME", "value": ""}]}],
        "securityContext": template["securityContext"] | identity,
    }
    objects.create(_manifest("Pod", "anybody", nobody))

    eventually(lambda: check_ready(objects, "anybody"), SERVED_SECONDS)


def test_a_block_causal_model_answers_from_a_claim_as_its_authors_code_does(
    cluster: Cluster, operator: Images, objects: Objects, namespace: str
) -> None:
    case = json.loads((SDAR / "cases.json").read_text())["cases"][4]
    client = InClusterClient(cluster, namespace, operator.server)
    Serving.create(objects, "sdar", SPEC, {"model": {"source": f"pvc://{CLAIM}/sdar"}}).wait_ready(
        SERVED_SECONDS
    )

    answer = client.post(
        "http://sdar:8000/v1/completions",
        {
            "prompt": case["prompt"],
            "max_tokens": case["max_tokens"],
            "return_token_ids": True,
            "diffusion": {"unmasking": {"strategy": "quota"}, "steps_per_block": case["denoising_steps"]},
        },
    )

    [choice] = answer["choices"]
    assert choice["token_ids"] == case["expected"]
    assert choice["finish_reason"] == case["finish_reason"] == "stop"


def test_a_path_that_is_not_on_the_claim_is_said(objects: Objects) -> None:
    serving = Serving.create(objects, "absent", SPEC, {"model": {"source": f"pvc://{CLAIM}/{FOLDER}/absent"}})

    ready = serving.wait_reason("Ready", "StartFailed", SERVED_SECONDS)

    assert "there is no such model: no directory of that name" in ready["message"]
