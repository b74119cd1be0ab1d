"""The front door's HAProxy configuration, checked by HAProxy itself."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from dllm_operator.render.door_config import Door, DoorPool, door_config
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
POOLS = st.builds(
    DoorPool,
    name=NAMES,
    address=NAMES.map(lambda name: f"{name}.ns.svc.cluster.local"),
    port=st.integers(1, 65535),
    limit=st.integers(1, 4096),
    slots=st.integers(1, 64),
)
DOORS = st.builds(
    Door,
    port=st.integers(1024, 30000),
    admin_port=st.integers(30001, 65535),
    queue=st.integers(1, 10_000),
    timeout_seconds=st.integers(1, 86400),
    pools=st.lists(POOLS, max_size=4, unique_by=lambda pool: pool.name),
    first=st.none() | POOLS.map(lambda pool: replace(pool, name="first", slots=2)),
)


def make_door(**changes: object) -> Door:
    pools = [
        DoorPool("a100", "a-a100-engines.ns.svc.cluster.local", 8000, 33, 32),
        DoorPool("l4", "a-l4-engines.ns.svc.cluster.local", 8000, 5, 32),
    ]
    values: dict[str, object] = {
        "port": 8080,
        "admin_port": 9464,
        "queue": 256,
        "timeout_seconds": 600,
        "pools": pools,
    }
    return Door(**(values | changes))  # type: ignore[arg-type]


def check(text: str, folder: Path) -> None:
    binary = shutil.which("haproxy")
    if binary is None:
        pytest.skip("haproxy is not installed")
    path = folder / "haproxy.cfg"
    path.write_text(text)
    done = subprocess.run([binary, "-c", "-f", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr


def test_haproxy_accepts_the_configuration_of_two_pools(tmp_path: Path) -> None:
    check(door_config(make_door()), tmp_path)


def test_haproxy_accepts_a_door_without_a_pool(tmp_path: Path) -> None:
    check(door_config(make_door(pools=())), tmp_path)


@settings(max_examples=10, deadline=None)
@given(DOORS)
def test_haproxy_accepts_whatever_a_resource_may_ask_for(
    tmp_path_factory: pytest.TempPathFactory, door: Door
) -> None:
    check(door_config(door), tmp_path_factory.mktemp("door"))


def test_a_pod_gets_no_more_requests_than_its_limit() -> None:
    lines = door_config(make_door()).splitlines()

    for name, slots, limit in (("a100", 32, 33), ("l4", 32, 5)):
        [line] = [line for line in lines if f"-{name}-engines." in line]
        assert line.startswith(
            f"  server-template {name}- {slots} a-{name}-engines.ns.svc.cluster.local:8000 "
        )
        assert f" maxconn {limit} " in line


def test_what_may_have_reached_an_engine_is_not_sent_again() -> None:
    text = door_config(make_door())

    assert "retry-on conn-failure\n" in text
    assert "option http-server-close\n" in text


@given(DOORS)
def test_engines_and_not_the_door_end_a_late_request(door: Door) -> None:
    text = door_config(door)

    patience = next(line for line in text.splitlines() if "timeout server" in line)
    assert int(patience.split()[-1].removesuffix("s")) > door.timeout_seconds
