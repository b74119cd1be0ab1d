"""What a container's limit says, from trees of files as kernels show them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dllm_server import cpus
from dllm_server.cpus import cpu_quota, limit_threads, usable_cpus

V2, V1 = "0::{}\n", "7:memory:{0}\n4:cpu,cpuacct:{0}\n1:name=systemd:{0}\n"


def make_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def v1(folder: str, quota: str, period: str = "100000") -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": period}


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        pytest.param(V2.format("/"), {"cpu.max": "25000 100000"}, 0.25, id="a container of its own"),
        pytest.param(V2.format("/"), {"cpu.max": "max 100000"}, None, id="no limit"),
        pytest.param(V2.format("/"), {}, None, id="the root of a machine"),
        pytest.param(V2.format("/pod/a"), {"cpu.max": "150000 100000"}, 1.5, id="paths of the host"),
        pytest.param(
            V2.format("/pod/a"),
            {"pod/cpu.max": "150000 100000", "pod/a/cpu.max": "400000 100000"},
            1.5,
            id="the pod's limit is less than the container's",
        ),
        pytest.param(V2.format("/a"), {"a/cpu.max": "50000 100000", "b/cpu.max": "1 100"}, 0.5, id="others"),
        pytest.param(V1.format("/"), v1("cpu", "150000"), 1.5, id="version 1"),
        pytest.param(V1.format("/docker/1"), v1("cpu", "50000"), 0.5, id="version 1, paths of the host"),
        pytest.param(
            V1.format("/a"), v1("cpu/a", "20000", "10000"), 2.0, id="version 1, a period of its own"
        ),
        pytest.param(V1.format("/"), v1("cpu", "-1"), None, id="version 1, no limit"),
        pytest.param(V1.format("/") + V2.format("/"), v1("cpu", "70000"), 0.7, id="both versions"),
        pytest.param(V1.format("/"), v1("memory", "70000"), None, id="another controller"),
        pytest.param(V2.format("/"), {"cpu.max": ""}, None, id="an empty file"),
        pytest.param("", {"cpu.max": "25000 100000"}, None, id="no cgroups"),
    ],
)
def test_the_quota_is_the_least_of_all_levels(
    tmp_path: Path, membership: str, files: dict[str, str], quota: float | None
) -> None:
    assert cpu_quota(make_tree(tmp_path, files), membership) == quota


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Eight CPUs and a quota."""

    def limit(quota: str) -> None:
        monkeypatch.setattr(cpus, "CGROUPS", make_tree(tmp_path, {"cpu.max": f"{quota} 100000"}))
        monkeypatch.setattr(cpus, "MEMBERSHIP", tmp_path / "membership")
        (tmp_path / "membership").write_text("0::/\n")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))

    return limit


@pytest.mark.parametrize(
    ("quota", "usable", "told"),
    [
        ("max", 8, {}),
        ("1000", 1, {"OMP_NUM_THREADS": "1"}),
        ("100000", 1, {"OMP_NUM_THREADS": "1"}),
        ("150000", 2, {"OMP_NUM_THREADS": "2"}),
        ("800000", 8, {}),
        ("1600000", 8, {}),
    ],
)
def test_a_fraction_is_a_thread_more_and_the_affinity_the_most(
    limited, quota: str, usable: int, told: dict[str, str]
) -> None:
    limited(quota)
    environment: dict[str, str] = {}

    limit_threads(environment)

    assert (usable_cpus(), environment) == (usable, told)


def test_what_the_user_has_set_stays(limited) -> None:
    limited("25000")
    environment = {"OMP_NUM_THREADS": "3"}

    limit_threads(environment)

    assert environment == {"OMP_NUM_THREADS": "3"}


def test_torch_takes_the_number(tmp_path: Path) -> None:
    """In a process that has not imported it yet."""
    make_tree(tmp_path, {"cpu.max": "50000 100000", "membership": "0::/"})
    program = (
        "import os, pathlib, sys\n"
        "os.sched_getaffinity = lambda _: set(range(8))\n"
        "from dllm_server import cpus\n"
        "cpus.CGROUPS = pathlib.Path(sys.argv[1]); cpus.MEMBERSHIP = cpus.CGROUPS / 'membership'\n"
        "cpus.limit_threads()\n"
        "import torch; print(torch.get_num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=environment, capture_output=True, text=True
    )

    assert done.stdout.strip() == "1", done.stderr
