"""The cases of the block-causal fixtures as plans of ``exact_oracle``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from exact_oracle import ExactPlan

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
BLOCK_CAUSAL = ("sdar", "sdar_b8", "sdar_moe", "llada2", "llada21", "fast_dllm_v2")
STRATEGIES = {"static": "quota", "dynamic": "threshold", "entropy_bounded": "entropy_bound"}

Case = dict[str, Any]


def cases_of(fixture: str) -> list[Case]:
    cases: list[Case] = json.loads((FIXTURES / fixture / "cases.json").read_text())["cases"]
    return cases


def plan_of(case: Case) -> ExactPlan:
    values = (case.get(name) for name in ("confidence_threshold", "eb_threshold", "threshold"))
    return ExactPlan(
        block_length=case["block_length"],
        strategy=STRATEGIES.get(case["strategy"], case["strategy"]),
        value=next((value for value in values if value is not None), 0.0),
        steps=case.get("effective_steps", case.get("denoising_steps")),
        edit_threshold=case.get("editing_threshold", 1.0),
        max_post_edit_steps=case.get("max_post_steps", 0),
        stops_inside=case.get("eos_early_stop", False),
        sub_block_length=case.get("sub_block_length"),
    )
