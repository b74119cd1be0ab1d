"""What the bodies of all requests have in common: strict types, and tables of the names they may hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic_core import PydanticCustomError

from dllm_server.api.schemas.neutral import Neutral
from dllm_server.api.schemas.prompt_input import check_text

Text = Annotated[str, Strict(), AfterValidator(check_text)]
Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=1)]
Number = Annotated[float, Strict()]
Item = TypeVar("Item")
ListOf = Annotated[
    list[Item], Field(fail_fast=True)
]  # a message for each of a million faults would take seconds
TokenIds = ListOf[Annotated[int, Strict(), Field(ge=0)]]


def check_json(value: dict[str, Any]) -> dict[str, Any]:
    """An object that JSON can hold and whose text UTF-8 can encode."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("text holds a lone surrogate, which no UTF-8 can carry") from error
    except RecursionError as error:
        raise ValueError("values lie inside of too many others") from error
    except ValueError as error:
        raise ValueError("NaN and Infinity are not JSON") from error
    return value


def one_of(kinds: Collection[str], what: str) -> BeforeValidator:
    """A value by which ``what`` is known; anything else, of any type, is not supported."""

    def check(kind: object) -> object:
        if not isinstance(kind, str) or kind not in kinds:
            raise PydanticCustomError(
                "unsupported_parameter",
                "{what} {kind} is not supported: only {kinds}",
                {"what": what, "kind": repr(kind), "kinds": ", ".join(sorted(kinds))},
            )
        return kind

    return BeforeValidator(check)


JsonObject = Annotated[dict[str, Any], AfterValidator(check_json)]


class RequestModel(BaseModel):
    """An object of a request. What is not a field is sorted out by ``names.read_names`` before it comes here,
    with the help of ``neutral``; ``only_if`` are the values by which an object of this kind is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    neutral: ClassVar[Mapping[str, Neutral]] = MappingProxyType({})
    only_if: ClassVar[Mapping[str, frozenset[str]]] = MappingProxyType({})


def needs_of_kinds(needed: Mapping[str, tuple[str, ...]]) -> Callable[[Item], Item]:
    """A check that an object has the optional fields that its ``type`` needs."""

    def check(given: Item) -> Item:
        for name in needed[getattr(given, "type")]:  # noqa: B009
            if getattr(given, name) is None:
                raise PydanticCustomError("missing", "{param} is missing", {"param": name})
        return given

    return check
