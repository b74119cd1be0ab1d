"""A finished bench as JSON: what was asked, and all that was measured, request by request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from dllm_server.load.bench import Bench, Measured
from dllm_server.load.outcome import Outcome
from dllm_server.load.settings import BenchSettings
from dllm_server.load.summary import Summary

SHAPE = 1  # of the record: counts up when a reader must change
_SECRETS = {"api_key", "against_api_key"}


def record(bench: Bench, version: str) -> dict[str, Any]:
    """Numbers that are none (NaN, infinite) are null."""
    content = {
        "shape": SHAPE,
        "dllm": version,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "is_whole": not bench.stop.is_set(),
        "settings": asked(bench.settings),
        "note": bench.scale_note,
        "endpoints": [_endpoint(measured) for measured in bench.measured],
        "ratios": [asdict(ratio) | {"ratio": ratio.ratio} for ratio in bench.ratios()],
        "sweep": None,
    }
    if bench.sweep is not None:
        tries = [{"rate": t.rate, "has_held": t.has_held, "summary": figures(t.summary)} for t in bench.tried]
        content["sweep"] = {"held": bench.sweep.held, "broken": bench.sweep.broken, "tries": tries}
    return {name: _without_nan(part) for name, part in content.items()}


def asked(settings: BenchSettings) -> dict[str, Any]:
    """What was given, without keys."""
    given = settings.model_dump(mode="json", exclude_unset=True, exclude=_SECRETS | {"objective"})
    objective = {} if settings.objective is None else {"objective": str(settings.objective)}
    return given | objective


def figures(summary: Summary) -> dict[str, Any]:
    return asdict(summary) | {"good_share": summary.good_share}


def _endpoint(measured: Measured) -> dict[str, Any]:
    return {
        "url": measured.endpoint.url,
        "model": measured.endpoint.model,
        "api": measured.endpoint.api,
        "summary": figures(measured.summary()),
        "server": [asdict(pair) | {"difference": pair.difference} for pair in measured.agreements()],
        "rounds": [[_row(outcome) for outcome in outcomes] for outcomes in measured.rounds],
    }


def _row(outcome: Outcome) -> dict[str, Any]:
    row = asdict(outcome)
    return (
        row
        | {name: round(row[name], 6) for name in ("intended", "sent", "ended")}
        | {"blocks": [round(moment, 6) for moment in outcome.blocks]}
    )


def _without_nan(value: object) -> object:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _without_nan(part) for name, part in value.items()}
        case Sequence() if not isinstance(value, str):
            return [_without_nan(part) for part in value]
    return value
