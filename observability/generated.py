"""Every generated file by its path from the repository's root."""

from __future__ import annotations

import yaml

from observability.alert import rules
from observability.alerts import GROUPS
from observability.boards import BOARDS
from observability.grafana import to_json
from observability.metrics_page import metrics_page

FILES = "charts/dllm-operator/files"


def generated() -> dict[str, str]:
    return {
        "docs/metrics.md": metrics_page(),
        f"{FILES}/alerts.yaml": yaml.safe_dump(rules(GROUPS), sort_keys=False, width=120),
    } | {f"{FILES}/dashboards/{board.name}.json": to_json(board) for board in BOARDS}
