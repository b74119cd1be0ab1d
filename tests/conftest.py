"""Threads for tiny models, and the cluster that all cluster tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.cluster.cluster import Cluster, find_cluster


def pytest_configure() -> None:
    """Two threads a test process cost tiny models more than they give."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One skip where no cluster can be had; an error where one was offered and does not come."""
    found = find_cluster()
    if found is None:
        pytest.skip("no cluster: set KUBECONFIG, or CLUSTER to a program that starts one, or install kind")
    cluster, give_back = found
    try:
        yield cluster
    finally:
        give_back()
