"""Command-line flags from the settings' fields: each knob is described once, in ``settings.py``."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def settings_options(model: type[BaseModel], *, leave_out: Iterable[str] = ()) -> Decorator:
    """An option for every field of ``model``; a flag that is not given is passed as None.

    Values stay text here and are checked by pydantic, which knows the types, units and bounds.
    """
    skipped = set(leave_out)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, field in reversed(list(model.model_fields.items())):
            if name not in skipped:
                command = _option(name, field)(command)
        return command

    return decorate


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were really given."""
    return {name: value for name, value in flags.items() if value is not None}


def describe(error: ValidationError) -> str:
    """A validation error in one line that names the flags and the rules. Values are left out: they may be of
    Secrets, and this may get into logs."""
    problems = []
    for problem in error.errors(include_input=False):
        message = problem["msg"].removeprefix("Value error, ")
        name = ".".join(str(part) for part in problem["loc"])
        problems.append(f"--{name.replace('_', '-')}: {message}" if name else message)
    return "; ".join(problems)


def _option(name: str, field: FieldInfo) -> Decorator:
    kind = _concrete(field.annotation)
    help_text = field.description or ""
    default = field.get_default(call_default_factory=True)
    if default not in (None, (), {}, False):
        help_text += f"  [default: {default}]"
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        return click.option(flag, name, is_flag=True, default=None, help=help_text)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return click.option(flag, name, type=click.Choice([member.value for member in kind]), help=help_text)
    return click.option(flag, name, metavar=_metavar(name, kind), help=help_text)


def _concrete(annotation: Any) -> Any:
    """``X`` of ``X | None`` and ``Annotated[X, ...]``."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return annotation


def _metavar(name: str, kind: Any) -> str:
    if name.endswith("_bytes") or name == "gpu_memory_limit":
        return "SIZE"
    if name in ("duration", "timeout"):
        return "TIME"
    return {"bool": "true|false", "int": "N", "float": "X", "Path": "FILE", "dict": "JSON"}.get(
        getattr(kind, "__name__", ""), "TEXT"
    )
