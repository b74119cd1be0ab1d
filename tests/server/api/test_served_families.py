"""The bidirectional families' reference cases through the real server: one after the other, and all at
once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from real_server import RealServer
from scripted_engine import FIXTURE

FAMILIES = ("llada_moe", "illada")


@pytest.fixture(scope="module", params=FAMILIES)
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
        diffusion={
            "block_length": case["block_length"],
            "refresh_interval": 1,
            "unmasking": {"strategy": case["strategy"], "value": case["value"]},
        },
    )


def check(found: dict[str, Any], case: dict[str, Any]) -> None:
    (choice,) = found["choices"]
    assert choice["token_ids"] == case["expected"]
    assert choice["finish_reason"] == case["finish_reason"]
    forwards = found["dllm_stats"]["forward_passes"]
    if "forwards" in case:
        assert forwards == case["forwards"]
    else:
        assert forwards <= case["forwards_through_stop_block"]


def test_each_case_alone_is_exact(served: tuple[RealServer, list[dict[str, Any]]]) -> None:
    server, cases = served

    for case in cases:
        check(answer(server, case), case)


def test_all_cases_at_once_are_exact(served: tuple[RealServer, list[dict[str, Any]]]) -> None:
    server, cases = served

    with ThreadPoolExecutor(len(cases)) as pool:
        found = list(pool.map(lambda case: answer(server, case), cases))

    for one, case in zip(found, cases, strict=True):
        check(one, case)
