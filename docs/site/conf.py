"""The documentation as a site: `make docs`."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from flowchart import flowchart  # noqa: E402

NAVIGATION = {
    "Begin": ["quickstart", "concepts", "playground", "models", "limitations"],
    "Serve": ["api", "configuration", "checkpoints", "capacity", "migrating", "security"],
    "On Kubernetes": ["operator", "crd", "front-door", "tuning", "operations", "metrics", "runbook"],
    "Measure": ["performance", "comparison", "benchmarking"],
    "Inside": ["architecture", "development"],
}

project = "dLLM-Serve"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["site/**"]
myst_heading_anchors = 4
nitpicky = True
smartquotes = False

html_theme = "furo"
html_title = f"dLLM-Serve {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"footer_icons": []}

_MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_source_read(_app: Sphinx, name: str, source: list[str]) -> None:
    """Pages stay plain Markdown: what only the site has is put in here."""
    text = _MERMAID.sub(lambda found: flowchart(found[1]), source[0])
    if name == "index":
        for caption, pages in NAVIGATION.items():
            text += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"
    source[0] = text


def setup(app: Sphinx) -> None:
    app.connect("source-read", on_source_read)
