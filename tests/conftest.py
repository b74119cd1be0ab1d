"""Threads for tiny models, and the cluster that all cluster tests share."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.cluster.cluster import Cluster, find_cluster
from tests.sampling import pytest_report_header, sample, seed
from tests.skip_summary import NO_CLUSTER, pytest_sessionfinish, pytest_terminal_summary

__all__ = ["pytest_report_header", "pytest_sessionfinish", "pytest_terminal_summary"]

TURN_SECONDS = 1800


def pytest_configure() -> None:
    """Two threads cost tiny models more than they give. No example of hypothesis has a deadline."""
    torch.set_num_threads(1)
    settings.register_profile("dllm", deadline=None)
    settings.load_profile("dllm")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cluster-tests",
        choices=["all", "none", "only"],
        default="all",
        help="which tests run: all, none of those that need a cluster, only those",
    )
    parser.addoption("--every-case", action="store_true", help="take all cases of sampled tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those of ``--cluster-tests``, a share of the sampled ones; the first with a cluster may wait for it."""
    wanted = config.getoption("--cluster-tests")
    chosen = [item for item in items if is_wanted("cluster" in fixtures_of(item), wanted)]
    if not config.getoption("--every-case") and not _names_a_case(config):
        chosen = sample(chosen, seed())
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen
    extend_first(items, "cluster", TURN_SECONDS)


def is_wanted(needs_cluster: bool, wanted: str) -> bool:
    """By a value of ``--cluster-tests``."""
    return wanted == "all" or needs_cluster == (wanted == "only")


def _names_a_case(config: pytest.Config) -> bool:
    """Whoever asks for one case by its name gets it."""
    return any("[" in argument for argument in config.args)


def extend_first(items: list[pytest.Item], fixture: str, seconds: float) -> None:
    """Give the first test that needs ``fixture`` so much time more than it has for itself."""
    for item in [item for item in items if fixture in fixtures_of(item)][:1]:
        own = item.get_closest_marker("timeout")
        has = float(own.args[0] if own else item.config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(has + seconds), append=False)


def fixtures_of(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """For one run of the tests at a time: the cluster has one release and one CRD, and whoever has started it
    ends it. One skip where no cluster can be had; an error where one was offered and does not come."""
    with (Path(tempfile.gettempdir()) / "dllm-cluster-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = find_cluster()
        if found is None:
            pytest.skip(NO_CLUSTER)
        cluster, give_back = found
        try:
            yield cluster
        finally:
            give_back()
