"""``dllm bench`` over real sockets, against small endpoints of another make."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import statistics
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from dllm_server.cli.commands import cli
from dllm_server.load.arrivals import Arrival
from dllm_server.load.endpoint import Endpoint
from dllm_server.load.question import Question
from dllm_server.load.run import OpenLoad, Run, open_session

from tests.server.load.slow_endpoint import Pace, SlowEndpoint

QUICK = Pace(0.0, 0.0, 3)


def run_bench(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, ["bench", *arguments], env=environment, catch_exceptions=False)


def recorded(folder: Path, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    path = folder / "record.json"
    result = run_bench(*arguments, "--json", str(path))
    assert result.exit_code == exit_code, result.output
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def asked(endpoint: SlowEndpoint) -> list[str]:
    """After the warm-up; connections have no order between them."""
    return sorted(body["messages"][0]["content"] for body in endpoint.bodies[2:])


def differences(endpoint: dict[str, Any]) -> dict[str, float]:
    return {pair["name"]: pair["difference"] for pair in endpoint["server"]}


def test_an_endpoint_that_is_twice_as_slow_has_the_ratios_that_the_two_measure_themselves(
    tmp_path: Path,
) -> None:
    slow, slower = Pace(0.1, 0.05, 4), Pace(0.2, 0.1, 4)
    load = ["--rate", "20", "--requests", "24", "--profile", "tiny", "--rounds", "2"]

    with SlowEndpoint(slow) as first, SlowEndpoint(slower) as second:
        found = recorded(tmp_path, first.url, "--against", second.url, *load)

        assert (first.counted.answered, second.counted.answered) == (26, 26)  # two each were the warm-up's
        assert asked(first) == asked(second)
    ratios = {ratio["name"]: ratio for ratio in found["ratios"]}
    for name, field in (("first block p50", "first"), ("end to end p50", "end")):
        own = [statistics.median(getattr(endpoint.counted, field)[2:]) for endpoint in (first, second)]
        assert ratios[name]["ratio"] == pytest.approx(own[1] / own[0], rel=0.1)
        assert ratios[name]["ratio"] > 1.5
    assert [len(rounds) for endpoint in found["endpoints"] for rounds in endpoint["rounds"]] == [12] * 4


def test_requests_and_tokens_are_those_that_the_server_counted(tmp_path: Path) -> None:
    with SlowEndpoint(Pace(0.01, 0.005, 5)) as endpoint:
        found = recorded(tmp_path, endpoint.url, "--clients", "5", "--requests", "60")["endpoints"][0]

        assert endpoint.most_open == 5
    shares = differences(found)
    assert (shares["requests answered"], shares["prompt tokens"], shares["generated tokens"]) == (0, 0, 0)
    assert found["summary"]["completion_tokens"] == 300
    assert {"first block", "end to end"} <= shares.keys()


def test_an_open_loop_sends_on_while_nothing_is_answered(tmp_path: Path) -> None:
    load = ["--rate", "200", "--requests", "30", "--prompts", str(_one_prompt(tmp_path)), "--warmup", "0"]

    with SlowEndpoint(Pace(0.0, 0.0, 1, answers_at=30)) as endpoint:
        found = recorded(tmp_path, endpoint.url, *load)

        assert endpoint.most_open == 30
    rows = found["endpoints"][0]["rounds"][0]
    last_arrival = max(row["intended"] for row in rows)
    assert all(row["blocks"][0] >= last_arrival for row in rows)


def test_a_client_that_is_late_does_not_hide_it() -> None:
    """All are due at once, while the machine does something else."""

    async def ask() -> Run:
        async with open_session() as session:
            run = Run(session, Endpoint(endpoint.url, "slow"), timeout_seconds=10, stop=asyncio.Event())
            serving = asyncio.create_task(run.serve(OpenLoad([Arrival(0.01, Question(3, "hi"))] * 5, 10.0)))
            await asyncio.sleep(0)
            time.sleep(0.3)  # noqa: ASYNC251 - that is the point
            await serving
            return run

    with SlowEndpoint(QUICK) as endpoint:
        run = asyncio.run(ask())

    assert len(run.outcomes) == 5
    for outcome in run.outcomes:
        assert outcome.error is None
        assert outcome.first_seconds is not None
        assert outcome.first_seconds >= outcome.lag_seconds > 0.2


def test_failures_are_counted_by_their_class(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("fine\nfull\nwrong\nbroken\nfine\n")

    with SlowEndpoint(QUICK, fail={"full": 429, "wrong": 400, "broken": 0}) as endpoint:
        load = ["--clients", "1", "--requests", "10", "--prompts", str(prompts), "--warmup", "0"]
        summary = recorded(tmp_path, endpoint.url, *load)["endpoints"][0]["summary"]

    assert summary["answered"] == 4
    assert summary["errors"] == {"429 told_to": 2, "400 told_to": 2, "connection: broke off": 2}
    assert summary["end"]["count"] == 4


def test_a_request_that_takes_too_long_has_failed(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("fine\n")

    with SlowEndpoint(Pace(30.0, 0.0, 1)) as endpoint:
        load = ["--clients", "2", "--requests", "2", "--timeout", "100ms", "--prompts", str(prompts)]
        load += ["--warmup", "0"]
        summary = recorded(tmp_path, endpoint.url, *load, exit_code=1)["endpoints"][0]["summary"]

    assert summary["errors"] == {"timeout": 2}


def test_an_endpoint_that_goes_away_fails_the_rest(tmp_path: Path) -> None:
    async def ask(url: str) -> list[str | None]:
        async with open_session() as session:
            run = Run(session, Endpoint(url, "m"), timeout_seconds=10, stop=asyncio.Event())
            return [o.error for o in await run.serve(OpenLoad([Arrival(0.0, Question(3, "hi"))] * 3, 10.0))]

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and nobody listens

        assert asyncio.run(ask(f"http://127.0.0.1:{held.getsockname()[1]}")) == ["connect"] * 3


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["http://127.0.0.1:1"], "http://127.0.0.1:1/v1/models: "),
        (["ftp://a"], "not the address of an HTTP server"),
        (["--rate", "1", "--clients", "2"], "different loads"),
        (["--prompts", "/nowhere"], "/nowhere"),
        (["--no-such"], "--no-such"),
        (["--json", "/no/such/folder/a.json"], "/no/such/folder"),
        (["--metrics", "http://127.0.0.1:1/metrics"], "http://127.0.0.1:1/metrics: no counters"),
        (
            ["--body", '{"max_tokens": "many"}'],
            "fails a first request of 16 words: 400 told_to: max_tokens is",
        ),
    ],
)
def test_what_cannot_be_asked_ends_in_one_line(arguments: list[str], problem: str) -> None:
    with SlowEndpoint(QUICK) as endpoint:
        result = run_bench(*(arguments if "//" in arguments[0] else [endpoint.url, *arguments]))

    assert result.exit_code == 2
    assert problem in result.stderr.splitlines()[-1]


def test_a_key_is_sent_asked_for_and_written_nowhere(tmp_path: Path) -> None:
    page = tmp_path / "report.html"

    with SlowEndpoint(QUICK, key="s3cret") as endpoint:
        refused = run_bench(endpoint.url)
        asked = [endpoint.url, "--requests", "3", "--json", str(tmp_path / "a.json"), "--html", str(page)]
        result = run_bench(*asked, DLLM_BENCH_API_KEY="s3cret")

    assert refused.exit_code == 2
    assert "401: give a key" in refused.stderr
    assert result.exit_code == 0
    for text in (result.output, (tmp_path / "a.json").read_text(), page.read_text()):
        assert "s3cret" not in text


def test_prompts_have_the_lengths_of_the_endpoints_own_tokens(tmp_path: Path) -> None:
    with SlowEndpoint(QUICK) as endpoint, SlowEndpoint(QUICK, counts_tokens=False) as silent:
        counted = recorded(tmp_path, endpoint.url, "--requests", "4")
        unknown = recorded(tmp_path, silent.url, "--requests", "4")

    assert counted["note"] is None
    assert "counts no tokens" in unknown["note"]
    assert unknown["endpoints"][0]["summary"]["completion_tokens"] is None


def test_a_trace_is_replayed_over_completions(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("seconds,prompt_tokens,max_tokens\n5,10,3\n5.02,20,4\n5.04,30,5\n")

    with SlowEndpoint(QUICK) as endpoint:
        found = recorded(tmp_path, endpoint.url, "--api", "completions", "--trace", str(trace))

        asked = sorted((len(body["prompt"].split()), body["max_tokens"]) for body in endpoint.bodies[2:])
        assert asked == [(10, 3), (20, 4), (30, 5)]
    rows = sorted(found["endpoints"][0]["rounds"][0], key=lambda row: row["intended"])
    assert [row["intended"] for row in rows] == [0.0, 0.02, 0.04]


def test_ctrl_c_ends_a_load_with_what_there_is(tmp_path: Path) -> None:
    with SlowEndpoint(Pace(0.0, 30.0, 2)) as endpoint:

        def interrupt() -> None:
            while len(endpoint.bodies) < 3:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        load = ["--rate", "100", "--prompts", str(_one_prompt(tmp_path)), "--warmup", "0"]
        found = recorded(tmp_path, endpoint.url, *load, exit_code=130)

    assert not found["is_whole"]
    assert set(found["endpoints"][0]["summary"]["errors"]) == {"cut"}


def test_a_sweep_says_where_the_objective_breaks(tmp_path: Path) -> None:
    pace = Pace(0.05, 0.0, 1, slots=4)  # at most 80 a second
    load = ["--sweep", "--rate", "20", "--duration", "500ms", "--objective", "end=250ms"]
    load += ["--sweep-share", "0.9", "--sweep-tolerance", "0.5", "--profile", "tiny"]
    page = tmp_path / "report.html"

    with SlowEndpoint(pace) as endpoint:
        found = recorded(tmp_path, endpoint.url, *load, "--html", str(page))

    sweep = found["sweep"]
    assert 0 < sweep["held"] < sweep["broken"] <= 1.5 * sweep["held"] + 1e-9
    assert [one["has_held"] for one in sweep["tries"]] == [
        one["summary"]["good_share"] >= 0.9 for one in sweep["tries"]
    ]
    assert len(found["endpoints"][0]["rounds"][0]) > 0
    assert "Good requests by rate" in page.read_text()


def test_a_sweep_of_what_answers_nothing_says_so(tmp_path: Path) -> None:
    with SlowEndpoint(QUICK, fail={"fine": 500}) as endpoint:
        load = ["--sweep", "--objective", "end=1s", "--rate", "100", "--duration", "200ms"]
        result = run_bench(endpoint.url, *load, "--prompts", str(_one_prompt(tmp_path)), "--warmup", "0")

    assert result.exit_code == 2
    assert re.search(r"answers nothing at 100 a second: .'500 told_to': \d+", result.stderr.splitlines()[-1])


def test_a_sweep_of_what_is_always_too_busy_finds_no_rate(tmp_path: Path) -> None:
    with SlowEndpoint(QUICK, fail={"fine": 429}) as endpoint:
        load = ["--sweep", "--objective", "end=1s", "--rate", "2000", "--duration", "20ms"]
        load += ["--prompts", str(_one_prompt(tmp_path)), "--warmup", "0"]
        load += ["--html", str(tmp_path / "report.html")]
        found = recorded(tmp_path, endpoint.url, *load, exit_code=1)

    assert "no rate that was tried held" in (tmp_path / "report.html").read_text()
    assert found["sweep"]["held"] == 0
    assert [one["rate"] for one in found["sweep"]["tries"]] == [2000 / 2**n for n in range(7)]


class Page(HTMLParser):
    """What a page would load, and whether its tags are closed."""

    VOID = frozenset({"meta", "line", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_report_is_one_page_that_loads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    with SlowEndpoint(QUICK, models=("<b>&model",)) as first, SlowEndpoint(QUICK) as second:
        load = ["--requests", "12", "--objective", "first=1s,end=2s", "--rounds", "2"]
        result = run_bench(first.url, "--against", second.url, *load, "--html", str(path))

    assert result.exit_code == 0
    text = path.read_text()
    page = Page()
    page.feed(text)
    assert (page.open, page.loads) == ([], [])
    assert "script" not in page.seen
    assert page.seen.count("svg") == 5
    assert "&lt;b&gt;&amp;model" in text
    assert not re.search(r"\bnan\b|Infinity|None", text)


def _one_prompt(folder: Path) -> Path:
    path = folder / "prompts.txt"
    path.write_text("fine\n")
    return path
