"""``dllm top``: what it asks, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from click.testing import CliRunner, Result
from dllm_operator.cluster.labels import pod_selector
from dllm_server.api.schemas.snapshot import Snapshot
from dllm_server.cli import pods, top
from dllm_server.cli.commands import cli
from dllm_server.cli.engine_view import BAR, Seen, bar, screen, size, sparkline
from dllm_server.cli.pods import SELECTOR, Pod, Pods, pods_of
from dllm_server.engine.requests.messages import StepSample, TuningChange
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scripted_engine import make_snapshot
from scripted_server import ScriptedServer

MIB = 1024**2
MODEL = {"version": "1", "model": "tiny", "device": "cpu", "dtype": "float32", "started_seconds": 0.0}


def run_top(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, ["top", "--once", *arguments], env={"COLUMNS": "160"} | environment)


def tell(server: ScriptedServer) -> None:
    server.engine.snapshot = msgspec.structs.replace(
        make_snapshot(),
        memory_bytes={"weights": 300 * MIB, "kv_pool": 100 * MIB, "free": 600 * MIB},
        memory_predicted_bytes={"weights": 300 * MIB, "kv_pool": 100 * MIB, "free": 500 * MIB},
        device_memory_bytes=1000 * MIB,
        requests_by_phase={"waiting": 2, "refresh": 1, "reuse": 0, "draining": 0},
        recent_steps=[StepSample(6, {"refresh": 40, "reuse": 8}, {"refresh": 1, "reuse": 1}, 4096, 3, 0.01)],
        tuning_changes=[TuningChange(7, 1000.0, {"max_num_seqs": (8, 4)})],
    )


def told(*, now_seconds: float = 100.0, committed: int = 0, **changes: Any) -> Snapshot:
    times = {"p50": None, "p95": 0.25, "p99": None}
    fields: dict[str, Any] = {
        "server": MODEL | {"now_seconds": now_seconds},
        "is_sound": True,
        "requests": {"running": 3, "waiting": 2, "most_running": 8, "by_phase": {"refresh": 1, "reuse": 2}},
        "memory": {
            "device_bytes": 1000,
            "budget_bytes": 900,
            "by_owner": {"weights": 250, "free": 750},
            "peak_by_owner": {},
            "predicted_by_owner": {},
        },
        "pages": {"used": 0, "free": 0, "prefix": 0, "page_size": 16},
        "prefix_cache": None,
        "steps": {
            "token_budget": 64,
            "total": {},
            "tokens_total": {},
            "committed_tokens_total": committed,
            "out_of_memory_total": 0,
            "preemptions_total": 0,
            "recent": [],
        },
        "latency": {
            "answers": 0,
            "queue_seconds": times,
            "first_block_seconds": times,
            "end_to_end_seconds": times,
        },
        "tuning": {"generation": 0, "errors": 0, "is_refused": False, "settings": {}, "changes": []},
    }
    return Snapshot(**(fields | changes))


def text_of(*seen: Seen) -> str:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(screen(seen))
    return console.export_text()


def test_one_server_is_shown_in_full() -> None:
    with ScriptedServer() as server:
        tell(server)
        server.http.post("/v1/completions", json={"prompt": [1, 2, 3], "max_tokens": 8})
        result = run_top(server.url)

    assert result.exit_code == 0
    for words in (
        "tiny on cpu in float32",
        "Memory  900.0 MiB of 1,000.0 MiB may be used",
        "■ weights  300.0 MiB",
        "1 of 4 running, 2 waiting",
        "2 waiting, 1 refresh, 0 reuse, 0 draining",
        "25 of 100 used, 10 hold prefixes",
        "4,096 tokens a step at most",
        "of the last 1 answers",
        "generation 7, newest file refused",
        "max_num_seqs 8 to 4",
    ):
        assert words in result.output, result.output


def test_several_servers_are_a_table_with_those_that_say_nothing_below() -> None:
    with socket.socket() as held, ScriptedServer() as first, ScriptedServer() as second:
        held.bind(("127.0.0.1", 0))  # and nobody listens
        nobody = f"127.0.0.1:{held.getsockname()[1]}"
        result = run_top(first.url, second.url, nobody)

    assert result.exit_code == 0
    assert "3 servers" in result.output
    assert f"{nobody}  Connection refused" in result.output
    assert "2/8" in result.output


def test_a_server_behind_keys_is_asked_with_one(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("s3cret\n")

    with ScriptedServer(api_keys_file=keys) as server:
        without = run_top(server.url)
        with_key = run_top(server.url, DLLM_TOP_API_KEY="s3cret")

    assert without.exit_code == 1
    assert "401: give a key" in without.output
    assert with_key.exit_code == 0
    assert "s3cret" not in with_key.output


def test_a_name_of_several_addresses_is_several_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET6, 0, 0, "", ("::1", 8000, 0, 0)),
        (socket.AF_INET, 0, 0, "", ("10.0.0.1", 8000)),
        (socket.AF_INET, 0, 0, "", ("10.0.0.2", 8000)),
        (socket.AF_INET, 0, 0, "", ("10.0.0.1", 8000)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    plain = asyncio.run(top.servers_of("pods.example:8000"))
    secure = asyncio.run(top.servers_of("https://pods.example"))

    assert [(one.url, one.host) for one in plain] == [
        ("http://10.0.0.1:8000", "pods.example:8000"),
        ("http://10.0.0.2:8000", "pods.example:8000"),
    ]
    assert [one.url for one in secure] == ["https://pods.example"]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found[:1])
    assert [one.url for one in asyncio.run(top.servers_of("pods.example:8000"))] == ["http://[::1]:8000"]


def test_the_rate_is_of_the_tokens_between_two_looks() -> None:
    first, second = told(now_seconds=100.0, committed=50), told(now_seconds=102.0, committed=250)
    seen = Seen("a").told(first)

    assert seen.tokens_per_second is None
    assert seen.told(second).tokens_per_second == 100.0
    assert seen.told(told(now_seconds=102.0, committed=3)).tokens_per_second is None  # it began anew


def test_a_server_that_has_done_nothing_can_be_shown() -> None:
    text = text_of(Seen("a").told(told()))

    assert "none yet" in text
    assert "3 of 8 running" in text


def test_an_unsound_model_is_told_of() -> None:
    sick = Seen("a").told(told(is_sound=False))

    assert "computes no numbers" in text_of(sick)
    assert "computes no numbers" in text_of(sick, sick)


def test_the_table_adds_up_what_can_be_added() -> None:
    one = Seen("http://a").told(told(now_seconds=1.0)).told(told(now_seconds=2.0, committed=10))

    lines = text_of(one, one, Seen("b").silent("timed out")).splitlines()

    (sums,) = (line.split() for line in lines if line.strip().startswith("all"))
    assert sums == ["all", "6/16", "4", "20"]
    assert lines[-1].split() == ["b", "timed", "out"]


@given(
    st.dictionaries(st.sampled_from(["weights", "kv", "logits", "free"]), st.floats(0, 1.5)),
    st.none() | st.integers(0, BAR),
)
def test_a_bar_has_its_width_whatever_is_in_it(shares: dict[str, float], mark: int | None) -> None:
    assert len(bar(shares, mark=mark)) == BAR + (mark is not None)


def test_a_bar_divides_its_cells_by_share() -> None:
    assert bar({"weights": 0.5, "free": 0.5}).plain == "█" * 30 + "·" * 30
    assert bar({"weights": 1.0}, mark=54).plain == "█" * 54 + "│" + "█" * 6


def test_a_sparkline_goes_from_nothing_to_all() -> None:
    assert sparkline([0.0, 0.5, 0.99, 1.0, 1.7]) == "▁▅███"


@pytest.mark.parametrize(("count", "words"), [(1536 * MIB, "1.50 GiB"), (300 * MIB, "300.0 MiB")])
def test_sizes_have_a_unit(count: int, words: str) -> None:
    assert size(count) == words


KUBECTL = """#!{python}
import json, os, pathlib, sys, time
folder = pathlib.Path({folder!r})
with (folder / "asked").open("a") as asked:
    asked.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "get":
    print((folder / "pods.json").read_text())
elif "pod/broken" in sys.argv:
    sys.exit("error: unable to forward port because pod is not running")
else:
    (folder / f"forward-{{os.getpid()}}").touch()
    pod = next(argument for argument in sys.argv if argument.startswith("pod/"))
    ports = json.loads((folder / "ports.json").read_text())
    print(f"Forwarding from 127.0.0.1:{{ports[pod]}} -> 8000", flush=True)
    time.sleep(60)
"""


def pod(name: str, phase: str = "Running", *, port_name: str = "http", **metadata: str) -> dict[str, Any]:
    ports = [{"name": port_name, "containerPort": 8000}]
    return {
        "metadata": {"name": name, **metadata},
        "spec": {"containers": [{"ports": ports}, {}]},
        "status": {"phase": phase},
    }


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a kubectl that lists pods.json and forwards to ports.json."""
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL.format(python=sys.executable, folder=str(tmp_path)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def test_pods_that_serve_are_told_from_others_by_their_port() -> None:
    listing = {
        "items": [
            pod("b"),
            pod("a", "Pending"),
            pod("leaving", deletionTimestamp="2026-01-01T00:00:00Z"),
            pod("job", port_name="other"),
        ]
    }

    assert pods_of(listing) == [
        Pod("a", None, "Pending"),
        Pod("b", 8000, "Running"),
        Pod("leaving", None, "Terminating"),
    ]


def test_the_pods_of_a_resource_are_selected_as_the_operator_labels_them() -> None:
    labels = dict(pair.split("=") for pair in SELECTOR.format(name="mine").split(","))

    assert labels == pod_selector("mine")


def test_all_pods_of_a_resource_are_shown_and_their_forwards_end(kubectl: Path) -> None:
    listing = {"items": [pod("one"), pod("two"), pod("new", "Pending"), pod("broken")]}
    (kubectl / "pods.json").write_text(json.dumps(listing))

    with ScriptedServer() as first, ScriptedServer() as second:
        ports = {"pod/one": first.listener_address[1], "pod/two": second.listener_address[1]}
        (kubectl / "ports.json").write_text(json.dumps(ports))
        result = run_top("--deployment", "mine", "--namespace", "team")

    assert result.exit_code == 0, result.output
    assert "2/8" in result.output
    assert "new  Pending" in result.output
    assert "broken  kubectl port-forward: error: unable to forward port" in result.output
    asked = (kubectl / "asked").read_text().splitlines()
    assert asked[0].startswith("get pods --namespace team --selector app.kubernetes.io/instance=mine,")
    assert "port-forward --namespace team pod/one :8000" in asked
    started = [int(path.name.partition("-")[2]) for path in kubectl.glob("forward-*")]
    assert len(started) == 2
    assert not [pid for pid in started if psutil.pid_exists(pid)]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--deployment", "mine"], "no pods of a DLLMDeployment mine"),
        (["http://a", "--deployment", "mine"], "give URLs, or a --deployment"),
        (["--namespace", "team"], "give URLs, or a --deployment"),
    ],
)
def test_pods_that_cannot_be_found_are_one_clear_line(
    kubectl: Path, arguments: list[str], problem: str
) -> None:
    (kubectl / "pods.json").write_text('{"items": []}')

    result = run_top(*arguments)

    assert result.exit_code == 2
    assert problem in result.stderr.splitlines()[-1]


def test_without_kubectl_the_error_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    result = run_top("--deployment", "mine")

    assert result.exit_code == 2
    assert "kubectl is not on the PATH" in result.stderr.splitlines()[-1]


def test_pods_that_were_known_stay_while_kubectl_cannot_tell(
    kubectl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pods, "LISTED_SECONDS", 0.0)
    (kubectl / "pods.json").write_text(json.dumps({"items": [pod("new", "Pending")]}))

    async def look_twice() -> list[list[Any]]:
        async with Pods(None, "mine") as source:
            first = await source.servers()
            (kubectl / "pods.json").write_text('{"items": []}')
            return [first, await source.servers()]

    first, second = asyncio.run(look_twice())

    assert first == [Seen("new", problem="Pending")]
    assert second[0] == first[0]
    assert "no pods of a DLLMDeployment" in second[1].problem
