"""Print the requirements of some extras of pyproject.toml, or the pinned line of one package.

requirements.py extras server gpu     what the project and these extras need
requirements.py pin torch             torch's line of constraints.txt
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def extras(names: list[str]) -> list[str]:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    return [
        *project["dependencies"],
        *(line for name in names for line in project["optional-dependencies"][name]),
    ]


def pin(package: str) -> list[str]:
    lines = Path("constraints.txt").read_text().splitlines()
    return [line for line in lines if line.startswith(f"{package}==")]


match sys.argv[1:]:
    case ["extras", *names]:
        sys.stdout.write("\n".join(extras(names)) + "\n")
    case ["pin", package]:
        sys.stdout.write("\n".join(pin(package)) + "\n")
    case _:
        sys.exit(__doc__)
