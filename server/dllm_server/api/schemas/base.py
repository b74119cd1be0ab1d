"""What the bodies of all requests have in common: strict types, and tables of the names they may hold."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

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


class RequestModel(BaseModel):
    """An object of a request. What is not a field is sorted out by ``names.read_names`` before it comes here,
    with the help of ``neutral``; ``only_if`` are the values by which an object of this kind is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    neutral: ClassVar[Mapping[str, Neutral]] = MappingProxyType({})
    only_if: ClassVar[Mapping[str, frozenset[str]]] = MappingProxyType({})
