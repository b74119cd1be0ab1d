"""guidellm's own program: a sweep (one at a time, all at once, constant rates) over both endpoints,
conversations of several turns, and what it says of a load beside what ``dllm bench`` says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from dllm_server.cli.commands import cli

from tests.compat.conftest import Served
from tests.compat.environment import MODEL_DIRECTORY, Clients
from tests.server.api.real_server import RealServer
from tests.server.load.slow_endpoint import Pace, SlowEndpoint

pytestmark = [
    pytest.mark.compat,
    pytest.mark.slow,
    pytest.mark.sampled(0.18, of="what tools for loads and scores say"),
]

REQUESTS = 8
PROMPT_TOKENS, OUTPUT_TOKENS = 48, 40


@dataclass(frozen=True, slots=True)
class Counted:
    """What the server has counted so far."""

    success: float
    cancelled: float
    prompt_tokens: float
    generated_tokens: float

    @classmethod
    def by(cls, server: RealServer, model: str) -> Counted:
        return cls(
            success=server.metric('dllm_requests_total{status="success"}'),
            cancelled=server.metric("dllm_requests_cancelled_total"),
            prompt_tokens=server.metric(f'vllm:prompt_tokens_total{{model_name="{model}"}}'),
            generated_tokens=server.metric(f'vllm:generation_tokens_total{{model_name="{model}"}}'),
        )

    def since(self, before: Counted) -> Counted:
        return Counted(
            self.success - before.success,
            self.cancelled - before.cancelled,
            self.prompt_tokens - before.prompt_tokens,
            self.generated_tokens - before.generated_tokens,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """What guidellm reports of its benchmarks, and what the server counted meanwhile."""

    benchmarks: list[dict[str, Any]]
    counted: Counted

    def totals(self) -> list[dict[str, int]]:
        return [benchmark["metrics"]["request_totals"] for benchmark in self.benchmarks]

    def requests(self) -> list[dict[str, Any]]:
        return [one for benchmark in self.benchmarks for one in benchmark["requests"]["successful"]]


def run_guidellm(
    clients: Clients, served: Served, folder: Path, *, profile: str, endpoint: str, data: str = ""
) -> Run:
    before = Counted.by(served.server, served.model)
    backend = f"target={served.url},api_key={served.key},request_format={endpoint}"
    benchmarks = reported(clients, folder, backend, profile, REQUESTS, data)
    return Run(benchmarks, Counted.by(served.server, served.model).since(before))


def reported(
    clients: Clients, folder: Path, backend: str, profile: str, requests: int, data: str = ""
) -> list[dict[str, Any]]:
    report = folder / "report.json"
    clients.run(
        "guidellm",
        "run",
        *("--backend", f"kind=openai_http,{backend}"),
        *("--profile", profile),
        *("--constraint", f"kind=max_requests,count={requests}"),
        *("--tokenizer", f"kind=huggingface_auto,model={MODEL_DIRECTORY}"),
        *("--data", f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={OUTPUT_TOKENS}{data}"),
        *("--output", f"kind=json,path={report}"),
        "--disable-console-interactive",
    )
    benchmarks: list[dict[str, Any]] = json.loads(report.read_text())["benchmarks"]
    return benchmarks


@pytest.fixture(scope="module", params=["/v1/chat/completions", "/v1/completions"])
def sweep(
    request: pytest.FixtureRequest,
    clients: Clients,
    served: Served,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    folder = tmp_path_factory.mktemp("guidellm")
    return run_guidellm(clients, served, folder, profile="kind=sweep,sweep_size=3", endpoint=request.param)


def test_a_sweep_ends_without_a_failed_request(sweep: Run) -> None:
    kinds = [benchmark["config"]["strategy"]["type_"] for benchmark in sweep.benchmarks]

    assert kinds == ["synchronous", "throughput", "constant"]
    for totals in sweep.totals():
        assert (totals["errored"], totals["incomplete"]) == (0, 0)
        assert totals["successful"] >= REQUESTS - 1  # guidellm leaves one out at the edge of a constant rate


def test_guidellm_and_the_server_count_the_same_tokens(sweep: Run) -> None:
    requests = sweep.requests()
    prompts = {one["input_metrics"]["text_tokens"] for one in requests}
    answers = {one["output_metrics"]["text_tokens"] for one in requests}

    assert (sweep.counted.success, sweep.counted.cancelled) == (3 * REQUESTS, 0)
    assert prompts == {sweep.counted.prompt_tokens / sweep.counted.success}
    assert answers == {sweep.counted.generated_tokens / sweep.counted.success}


def test_every_answer_has_the_length_that_was_asked_for(sweep: Run) -> None:
    assert {one["output_metrics"]["text_tokens"] for one in sweep.requests()} == {OUTPUT_TOKENS}


def test_conversations_of_three_turns_send_their_history_back(
    clients: Clients, served: Served, tmp_path: Path
) -> None:
    run = run_guidellm(
        clients,
        served,
        tmp_path,
        profile="kind=synchronous",
        endpoint="/v1/chat/completions",
        data=",turns=3",
    )

    (totals,) = run.totals()
    assert totals["errored"] == 0
    lengths = [one["input_metrics"]["text_tokens"] for one in run.requests()]
    assert max(lengths) > 2 * PROMPT_TOKENS


def test_dllm_bench_says_of_a_load_what_guidellm_says(clients: Clients, tmp_path: Path) -> None:
    """Of an endpoint whose pace does not depend on what else runs."""
    streams, requests, record = 2, 16, tmp_path / "record.json"
    with SlowEndpoint(Pace(0.4, 0.1, 8)) as endpoint:
        backend = f"target={endpoint.url},request_format=/v1/chat/completions"
        (theirs,) = reported(clients, tmp_path, backend, f"kind=concurrent,streams={streams}", requests)
        load = ["--clients", str(streams), "--requests", str(requests), "--prompt-tokens", str(PROMPT_TOKENS)]
        result = CliRunner().invoke(cli, ["bench", endpoint.url, *load, "--json", str(record)])

    assert result.exit_code == 0, result.output
    (found,) = json.loads(record.read_text())["endpoints"]
    ours, metrics = found["summary"], theirs["metrics"]

    def median(name: str) -> float:
        return float(metrics[name]["successful"]["percentiles"]["p50"])

    assert ours["first"]["p50"] == pytest.approx(median("time_to_first_token_ms") / 1000, rel=0.1)
    assert ours["end"]["p50"] == pytest.approx(median("request_latency"), rel=0.1)
    assert ours["pause"]["p50"] == pytest.approx(median("inter_token_latency_ms") / 1000, rel=0.1)
    rate = metrics["requests_per_second"]["successful"]["mean"]
    assert ours["answered_per_second"] == pytest.approx(rate, rel=0.1)
    tokens = metrics["output_tokens_per_second"]["successful"]["mean"]
    assert ours["tokens_per_second"] == pytest.approx(tokens, rel=0.1)
