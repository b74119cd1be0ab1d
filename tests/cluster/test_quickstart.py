"""The quickstart's way to a cluster, from the text of the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.cluster import ROOT, Cluster
from tests.cluster.conftest import QUICKSTART, RELEASE_NAMESPACE, Images, remove_operator, words_here
from tests.walkthrough import Walk, free_port

pytestmark = pytest.mark.cluster


def test_the_quickstart_ends_in_an_answer_from_the_cluster(
    cluster: Cluster, images: Images, namespace: str, tmp_path: Path
) -> None:
    """The images are made by its first block. Its resource comes into a namespace of the test's, whose pods
    are restricted."""
    remove_operator(cluster)
    config = tmp_path / "kubeconfig"
    config.write_text(cluster.kubectl("config", "view", "--raw", "--minify", "--flatten"))
    cluster.kubectl(
        "--kubeconfig", str(config), "config", "set-context", "--current", "--namespace", namespace
    )
    port = free_port()
    environment = cluster.env | {"KUBECONFIG": str(config)}

    try:
        here = words_here(cluster, port)
        with Walk(ROOT, f"http://localhost:{port}", environment, here, command_seconds=400) as walk:
            walk.run(QUICKSTART[1:])
    finally:
        cluster.kubectl("delete", "pod", "dllm-operator-test", "-n", RELEASE_NAMESPACE, "--ignore-not-found")
        remove_operator(cluster)

    tested = walk.printed[f"helm test dllm -n {RELEASE_NAMESPACE}"]
    assert "Phase:          Succeeded" in tested
    (listed,) = (text for command, text in walk.printed.items() if command.startswith("kubectl get dllm"))
    assert f"http://embedded.{namespace}.svc:8000" in listed
