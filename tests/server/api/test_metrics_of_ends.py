"""Each metric of a request against each way in which a request can end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from dllm_server.engine.requests.messages import Failed, FailureReason, FinishReason, Score
from scripted_engine import Script, Wait, block, count_up, failed, finished, hang, one_block_then
from scripted_server import ScriptedServer, eventually
from test_request_failures import complete, open_request
from test_server_metrics import samples

MODEL = '{model_name="tiny"}'
TIMES = {
    "queue": ("dllm_queue_seconds_count", "recent queue"),
    "first_block": (
        "dllm_first_block_seconds_count",
        f"vllm:time_to_first_token_seconds_count{MODEL}",
        "recent first_block",
    ),
    "e2e": ("dllm_e2e_seconds_count", f"vllm:e2e_request_latency_seconds_count{MODEL}", "recent end_to_end"),
}
OUTCOMES = {"cancelled": "dllm_requests_cancelled_total", "refused": "dllm_requests_refused_total"}
FAMILIES = {
    *(name.partition("{")[0] for names in TIMES.values() for name in names),
    *OUTCOMES.values(),
    "dllm_requests_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:request_success_total",
}
ANSWERED, BEGUN = ("queue", "first_block", "e2e"), ("queue", "first_block")
SCORED = {"echo": True, "logprobs": 1}


def empty(request: Any) -> Any:
    return [finished(request, reason=FinishReason.STOP)]


def empty_block(request: Any) -> Any:
    return [block(request, [], forwards=1), finished(request, reason=FinishReason.STOP)]


def fails(reason: FailureReason) -> Script:
    return lambda request: [failed(request, reason)]


def breaks(request: Any) -> Any:
    raise RuntimeError("a bug")


def fail_scoring(request: Score) -> Failed:
    return Failed(request.request_id, FailureReason.OUT_OF_MEMORY, "scripted")


hang_later = one_block_then(lambda _: Wait.FOREVER)


@dataclass(frozen=True)
class End:
    """A way to end, and what is counted then: the outcome of the HTTP request, which of ``TIMES`` are taken,
    tokens sent and generated, the reason of a choice that was answered."""

    outcome: str
    script: Script = count_up
    times: tuple[str, ...] = ()
    generated: int = 0
    reason: str | None = None
    prompt: int = 3
    body: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    score: Callable[[Score], Any] | None = None
    is_full: bool = False  # the server, of another request
    leaves: bool = False

    def begun(self) -> dict[str, float]:
        """What there is more of before the end."""
        more: dict[str, float] = {name: 1 for kind in self.times for name in TIMES[kind]}
        more[f"vllm:prompt_tokens_total{MODEL}"] = self.prompt
        more[f"vllm:generation_tokens_total{MODEL}"] = self.generated
        return {name: value for name, value in more.items() if value}

    def ended(self) -> dict[str, float]:
        more = self.begun() | {f'dllm_requests_total{{status="{self.outcome}"}}': 1}
        if self.outcome in OUTCOMES:
            more[OUTCOMES[self.outcome]] = 1
        if self.reason is not None:
            more[f'vllm:request_success_total{{finished_reason="{self.reason}",model_name="tiny"}}'] = 1
        return more


ENDS = {
    "full length": End("success", times=ANSWERED, generated=8, reason="length"),
    "a stop string": End("success", times=ANSWERED, generated=7, reason="stop", body={"stop": "t5 t6"}),
    "nothing": End("success", empty, ANSWERED, reason="stop"),
    "an empty block": End("success", empty_block, ANSWERED, reason="stop"),
    "scored": End("success", times=("e2e",), reason="length", body=SCORED | {"max_tokens": 0}),
    "scored, continued": End("success", times=ANSWERED, generated=8, reason="length", body=SCORED),
    "scored, nothing": End("success", empty, ANSWERED, reason="stop", body=SCORED),
    "scoring fails": End("unavailable", body=SCORED, score=fail_scoring),
    "too large": End("invalid", fails(FailureReason.TOO_LARGE)),
    "out of memory": End("unavailable", fails(FailureReason.OUT_OF_MEMORY)),
    "out of memory later": End(
        "unavailable", one_block_then(lambda r: failed(r, FailureReason.OUT_OF_MEMORY)), BEGUN, 3
    ),
    "no numbers": End("error", fails(FailureReason.NOT_FINITE)),
    "the engine's bug": End("error", fails(FailureReason.ENGINE_ERROR)),
    "the API's bug": End("error", breaks),
    "dropped": End(
        "unavailable", one_block_then(lambda r: finished(r, reason=FinishReason.CANCELLED)), BEGUN, 3
    ),
    "timeout": End("timeout", hang, settings={"request_timeout_seconds": 0.2}),
    "timeout later": End("timeout", hang_later, BEGUN, 3, settings={"request_timeout_seconds": 1.0}),
    "the client leaves": End("cancelled", hang, leaves=True),
    "the client leaves later": End("cancelled", hang_later, BEGUN, 3, leaves=True),
    "refused": End(
        "refused", hang, prompt=0, body={"n": 2}, settings={"max_queued_requests": 1}, is_full=True
    ),
    "invalid": End("invalid", prompt=0, body={"max_tokens": -5}),
}


def counts(server: ScriptedServer) -> dict[str, float]:
    """Of requests and their tokens, and of the times that the engine page shows."""
    recent = server.service.metrics.requests.recent
    kept = {f"recent {name}": len(getattr(recent, name)) for name in ("queue", "first_block", "end_to_end")}
    shown = samples(server.http.get("/metrics").text) | kept
    return {name: value for name, value in shown.items() if name.partition("{")[0] in FAMILIES}


@pytest.mark.parametrize("name", ENDS)
def test_an_end_is_counted_once_in_each_metric_that_it_has(name: str) -> None:
    """Whole answers, then streams."""
    end = ENDS[name]
    with ScriptedServer(end.script, slots=1, **end.settings) as server, ExitStack() as others:
        if end.score is not None:
            server.engine.score_script = end.score
        if end.is_full:
            others.enter_context(open_request(server))
        for stream in (False, True):
            before = counts(server)

            def more(before: dict[str, float] = before) -> dict[str, float]:
                after = counts(server).items()
                return {
                    each: value - before.get(each, 0) for each, value in after if value != before.get(each, 0)
                }

            if end.leaves:
                with open_request(server, stream=stream):
                    eventually(lambda: more() == end.begun(), "it is as far as it gets")
            else:
                complete(server, stream=stream, **end.body)

            eventually(lambda: len(server.engine.open) == end.is_full, "it is over")
            eventually(
                lambda: any(each.startswith("dllm_requests_total") for each in more()), "it is counted"
            )
            assert more() == end.ended(), "streamed" if stream else "whole"
