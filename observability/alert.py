"""An alert, and groups of them as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

RUNBOOK = "RUNBOOK_URL"  # the chart puts its value there


class Severity(StrEnum):
    CRITICAL = "critical"  # requests fail, or nobody looks after the resources
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Alert:
    """``held_for`` in Prometheus' spelling: how long ``expression`` must have had a series. The texts are
    templates of Prometheus; the runbook has a section of the alert's name."""

    name: str
    severity: Severity
    expression: str
    held_for: str
    summary: str
    description: str

    def rule(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.held_for,
            "labels": {"severity": str(self.severity)},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOK}#{self.name.lower()}",
            },
        }


def rules(groups: Mapping[str, Sequence[Alert]]) -> dict[str, Any]:
    """A file of rules."""
    return {
        "groups": [
            {"name": name, "rules": [alert.rule() for alert in group]} for name, group in groups.items()
        ]
    }
