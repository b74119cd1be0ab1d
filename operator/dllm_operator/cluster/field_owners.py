"""Who has set which fields of a pod's template, from the API server's managedFields. Pure.

What an admission webhook adds to a write has no owner, so an injector is never taken for a person's edit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dllm_operator.cluster.observe import Manifest

Path = tuple[str, ...]
"""As in fieldsV1: ``f:NAME`` for a field, ``k:{...}`` for an item of a list by its keys."""

_TEMPLATE = ("f:spec", "f:template", "f:spec")


@dataclass(frozen=True, slots=True)
class ForeignField:
    """Below the spec of the pod's template; set by ``manager`` and by nobody else."""

    manager: str
    path: Path

    def __str__(self) -> str:
        return ".".join(_step_name(step) for step in self.path)


def foreign_fields(body: Manifest, own: str) -> tuple[ForeignField, ...]:
    """Fields of the template that others than ``own`` and its other names (``own-...``) have set."""
    ours: set[Path] = set()
    theirs: list[ForeignField] = []
    for entry in body["metadata"].get("managedFields") or ():
        fields = _below_template(entry)
        if entry.get("manager", "").startswith(own):
            ours |= set(_owned(fields))
        else:
            theirs += [ForeignField(entry.get("manager", ""), path) for path in _owned(fields)]
    alone = [field for field in theirs if field.path not in ours]
    paths = {field.path for field in alone}
    return tuple(field for field in alone if not any(field.path[:n] in paths for n in range(len(field.path))))


def find(spec: Any, path: Path) -> tuple[str, Any] | None:
    """JSON pointer and value of what stands there in the spec of a pod; None where nothing does."""
    pointer, value = "", spec
    for step in path:
        found = _enter(value, step)
        if found is None:
            return None
        name, value = found
        pointer += "/" + name.replace("~", "~0").replace("/", "~1")
    return pointer, value


def _enter(value: Any, step: str) -> tuple[str, Any] | None:
    kind, _, rest = step.partition(":")
    if kind == "f" and isinstance(value, Mapping) and rest in value:
        return rest, value[rest]
    if kind == "k" and isinstance(value, Sequence) and not isinstance(value, str):
        keys = json.loads(rest)
        for index, item in enumerate(value):
            if isinstance(item, Mapping) and all(item.get(name) == wanted for name, wanted in keys.items()):
                return str(index), item
    return None


def _below_template(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = {} if entry.get("subresource") else entry.get("fieldsV1") or {}
    for step in _TEMPLATE:
        fields = fields.get(step) or {}
    return fields


def _owned(fields: Mapping[str, Any], path: Path = ()) -> Iterator[Path]:
    """What is owned itself: leaves, and items or maps that the manager has made."""
    for step, below in fields.items():
        if step == ".":
            yield path
        elif step.startswith(("f:", "k:")):
            if below:
                yield from _owned(below, (*path, step))
            else:
                yield (*path, step)


def _step_name(step: str) -> str:
    kind, _, rest = step.partition(":")
    if kind != "k":
        return rest
    return "[" + ", ".join(str(value) for value in json.loads(rest).values()) + "]"
