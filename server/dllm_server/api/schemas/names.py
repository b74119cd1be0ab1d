"""Which names the objects of a request may hold, at every depth, and what is done with the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, NoneType
from typing import Any, get_args

from pydantic import BaseModel

from dllm_server.api.schemas.errors import unsupported_parameter
from dllm_server.api.schemas.neutral import Neutral

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ShapedAs:
    """Annotation of a field that holds names of ``model`` but is validated elsewhere."""

    model: type[BaseModel]


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one object: fields, neutral parameters, and the objects inside of it."""

    fields: frozenset[str]
    nullable: frozenset[str]  # fields in which null is a value
    neutral: Mapping[str, Neutral]
    inside: Mapping[str, Names]  # field -> names of the object, or of each object of the list, in it
    only_if: Mapping[str, frozenset[str]]  # an object with another value here is not looked into


def names_of(model: type[BaseModel]) -> Names:
    """Names of a request model; it may hold ``neutral`` and ``only_if`` as class variables."""
    fields = model.model_fields
    inside = {
        name: names_of(part) for name, field in fields.items() for part in _models_in(field.annotation, field)
    }
    return Names(
        fields=frozenset(fields),
        nullable=frozenset(name for name, field in fields.items() if NoneType in get_args(field.annotation)),
        neutral=getattr(model, "neutral", _NOTHING),
        inside=inside,
        only_if=getattr(model, "only_if", _NOTHING),
    )


def read_names(body: Any, names: Names) -> tuple[Any, list[str]]:
    """``body`` with fields alone, and the paths of unknown names, which have been left out of it.

    Null for a known name means that it was not sent. ``ApiError`` 400 for a parameter that this server lacks,
    unless its value changes nothing.
    """
    unknown: list[str] = []
    return _read(body, names, "", unknown), unknown


def _read(value: Any, names: Names, path: str, unknown: list[str]) -> Any:
    if not isinstance(value, dict) or not _is_looked_into(value, names):
        return value
    read = {}
    for name, given in value.items():
        if name in names.fields:
            if given is not None or name in names.nullable:
                inner = names.inside.get(name)
                read[name] = given if inner is None else _read_inside(given, inner, path + name, unknown)
        elif name not in names.neutral:
            unknown.append(path + name)
        elif given is not None and not names.neutral[name].accepts(given, value):
            raise unsupported_parameter(path + name, given, names.neutral[name].remedy)
    return read


def _read_inside(given: Any, names: Names, path: str, unknown: list[str]) -> Any:
    if isinstance(given, list):
        return [
            _read(part, names, f"{path}.{index}.", unknown) if isinstance(part, dict) else part
            for index, part in enumerate(given)
        ]
    return _read(given, names, f"{path}.", unknown)


def _is_looked_into(value: Mapping[str, Any], names: Names) -> bool:
    """Whether the object is of a kind whose names these are; its validation refuses any other kind."""
    return all(
        isinstance(kind := value.get(name), str) and kind in kinds for name, kinds in names.only_if.items()
    )


def _models_in(annotation: Any, field: Any = None) -> Iterator[type[BaseModel]]:
    """Models that a field holds: itself, in a list, or beside null."""
    yield from (mark.model for mark in getattr(field, "metadata", ()) if isinstance(mark, ShapedAs))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
