"""What to install where a command lacks a package that its extra brings.

The distribution is on no index: the advice names this checkout or archive, else the packages themselves.
Imports nothing but the standard library, since the operator uses it too.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "dllm-serve"

_OURS = ("dllm_kernels", "dllm_server", "dllm_operator")


class MissingPackageError(RuntimeError):
    """A package of an extra is not installed; the message says how to install it."""


def is_foreign(error: ImportError) -> bool:
    """Whether a package of others is missing: what else cannot be imported is a bug."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in ("", *_OURS)


def missing(what: str, extras: Sequence[str], error: ImportError) -> MissingPackageError:
    """The error to raise from ``error`` where ``what`` needs the packages of ``extras``."""
    return MissingPackageError(
        f"{what} needs the Python module {error.name}, which is not installed: {_advice(extras)}"
    )


def _advice(extras: Sequence[str]) -> str:
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return f"install {DISTRIBUTION} with its extra {','.join(extras)}"
    target = install_target(distribution.read_text("direct_url.json"), extras)
    packages = absent(requirements(distribution.requires or (), extras))
    arguments = target or [shlex.quote(package) for package in packages] or [f"'{DISTRIBUTION}'"]
    return " ".join([*_pip(), "install", *arguments])


def install_target(direct_url: str | None, extras: Sequence[str]) -> list[str]:
    """Arguments of ``pip install`` for the directory or archive that the distribution came from; none where
    it is not known, as in an image."""
    origin = json.loads(direct_url or "{}")
    url = urlsplit(str(origin.get("url", "")))
    if url.scheme != "file":
        return []
    target = shlex.quote(f"{unquote(url.path)}[{','.join(extras)}]")
    return ["--editable", target] if origin.get("dir_info", {}).get("editable") else [target]


def requirements(requires: Iterable[str], extras: Sequence[str]) -> list[str]:
    """``reasoning-gym>=0.1.25`` for ``reasoning-gym>=0.1.25; extra == 'evaluate'``, of the extras alone."""
    found = []
    for line in requires:
        requirement, _, marker = line.partition(";")
        if any(re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", marker) for extra in extras):
            found.append(requirement.strip())
    return found


def absent(wanted: Iterable[str]) -> list[str]:
    """Those of no installed distribution."""
    found = []
    for requirement in wanted:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        try:
            metadata.version(name[0] if name else requirement)
        except metadata.PackageNotFoundError:
            found.append(requirement)
    return found


def _pip() -> list[str]:
    """Of this interpreter's environment, which in an image has no pip of its own."""
    if find_spec("pip") is not None:
        return [shlex.quote(sys.executable), "-m", "pip"]
    return ["pip", "--python", shlex.quote(sys.executable)]
