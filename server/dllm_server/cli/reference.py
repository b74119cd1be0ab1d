"""``python -m dllm_server.cli.reference``: docs/configuration.md, from the settings' own descriptions."""

from __future__ import annotations

import sys
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dllm_server.settings import ApiSettings, EngineSettings, LiveSettings, LogSettings

HEADER = """# Configuration

Every setting is a flag (`--max-num-seqs 8`), an environment variable (`DLLM_MAX_NUM_SEQS=8`) and a line
of the `--config` file (`max_num_seqs: 8`). Flags win over the environment, it over the file, the file over
the defaults.
This page is generated: `python -m dllm_server.cli.reference > docs/configuration.md`.
"""


def reference() -> str:
    """The page's text."""
    live = set(LiveSettings.model_fields)
    sections = [
        HEADER,
        "## API\n",
        _table(ApiSettings, set()),
        "## Logs\n",
        _table(LogSettings, set()),
        "## Engine\n",
        "Settings marked live can change while serving, by the file that `--tuning-file` names: a JSON\n"
        "object of them and a `generation`. Nonsense is refused, counted and logged; the last good settings\n"
        "stay.\n",
        _table(EngineSettings, live),
    ]
    return "\n".join(sections)


def _table(model: type[BaseModel], live: set[str]) -> str:
    rows = ["| flag | default | |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        mark = " (live)" if name in live else ""
        flag = "MODEL" if name == "model" else f"--{name.replace('_', '-')}"
        rows.append(f"| `{flag}` | {_default(field)} | {field.description}{mark} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    return "" if value in (None, ()) else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
