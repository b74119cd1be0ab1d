"""``python -m observability``: write docs/metrics.md and the chart's dashboards and alerts."""

from __future__ import annotations

from pathlib import Path

from observability.generated import generated

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    for path, text in generated().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text)
