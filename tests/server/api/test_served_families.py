"""The families' reference cases through the real server: one after the other, and all at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from real_server import RealServer
from scripted_engine import FIXTURE

BIDIRECTIONAL = ("llada_moe", "illada")
BLOCK_CAUSAL = ("sdar", "sdar_b8", "sdar_moe", "llada2", "llada21", "fast_dllm_v2")
STRATEGIES = {"static": "quota", "dynamic": "threshold", "entropy_bounded": "entropy_bound"}


pytestmark = pytest.mark.sampled(0.4, of="families over HTTP")


@pytest.fixture(scope="module", params=[*BIDIRECTIONAL, *BLOCK_CAUSAL])
def served(request: pytest.FixtureRequest) -> Iterator[tuple[RealServer, list[dict[str, Any]]]]:
    directory = FIXTURE.parent / request.param
    cases = json.loads((directory / "cases.json").read_text())["cases"]
    with RealServer("--max-num-seqs", "8", model=str(directory)) as server:
        yield server, cases


def answer(server: RealServer, case: dict[str, Any]) -> dict[str, Any]:
    return server.complete(
        prompt=case["prompt"],
        max_tokens=case["max_tokens"],
        return_token_ids=True,
        diffusion=exact_decoding(case) if "value" not in case else decoding(case),
    )


def decoding(case: dict[str, Any]) -> dict[str, Any]:
    return {
        "block_length": case["block_length"],
        "refresh_interval": 1,
        "unmasking": {"strategy": case["strategy"], "value": case["value"]},
    }


def exact_decoding(case: dict[str, Any]) -> dict[str, Any]:
    """What is None means nothing to the case."""
    values = (case.get(name) for name in ("confidence_threshold", "eb_threshold", "threshold"))
    return {
        "block_length": case["block_length"],
        "unmasking": {
            "strategy": STRATEGIES.get(case["strategy"], case["strategy"]),
            "value": next((value for value in values if value is not None), 1),
        },
        "steps_per_block": case.get("effective_steps", case.get("denoising_steps")),
        "edit_threshold": case.get("editing_threshold"),
        "max_post_edit_steps": case.get("max_post_steps"),
        "sub_block_length": case.get("sub_block_length"),
    }


def check(found: dict[str, Any], case: dict[str, Any]) -> None:
    (choice,) = found["choices"]
    assert choice["token_ids"] == case["expected"]
    assert choice["finish_reason"] == case["finish_reason"]
    forwards = found["dllm_stats"]["forward_passes"]
    if "value" not in case:
        return  # the engine's own tests count: a step commits a block and begins the next one
    if "forwards" in case:
        assert forwards == case["forwards"]
    else:
        assert forwards <= case["forwards_through_stop_block"]


def test_each_case_alone_is_exact(served: tuple[RealServer, list[dict[str, Any]]]) -> None:
    """A few of those that the engine's own tests run all of."""
    server, cases = served

    for case in cases[::4]:
        check(answer(server, case), case)


def test_all_cases_at_once_are_exact(served: tuple[RealServer, list[dict[str, Any]]]) -> None:
    server, cases = served

    with ThreadPoolExecutor(len(cases)) as pool:
        found = list(pool.map(lambda case: answer(server, case), cases))

    for one, case in zip(found, cases, strict=True):
        check(one, case)
