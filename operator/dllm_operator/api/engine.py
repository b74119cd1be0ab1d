"""`spec.engine`: the engine's settings, generated from the server's own."""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args

from dllm_server.settings import EngineSettings, MemorySize
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from dllm_operator.api.base import ApiModel
from dllm_operator.api.quantity import MemorySizeText

SET_BY_THE_OPERATOR = frozenset({"model", "revision", "served_model_name", "device", "tuning_file"})


class EngineOverrides(ApiModel):
    """Settings of the engine; what is unset keeps the server's default."""

    def settings(self) -> dict[str, Any]:
        """Name in ``EngineSettings`` -> JSON value, of the fields that are set."""
        return self.model_dump(mode="json", exclude_none=True)


def _optional(field: FieldInfo) -> tuple[Any, Any]:
    """The field without its default; a size in bytes stays the text that people write."""
    alternatives = [part for part in get_args(field.annotation) if part is not NoneType]
    annotation: Any = alternatives[0] if alternatives else field.annotation
    optional: Any = (MemorySizeText if annotation == MemorySize else annotation) | None
    for constraint in field.metadata:
        optional = Annotated[optional, constraint]
    return optional, Field(default=None, description=_description(field))


def _description(field: FieldInfo) -> str:
    default = "" if field.default is None else f" The server's default is {field.default}."
    return f"{field.description}{default}"


if TYPE_CHECKING:
    EngineSpec = EngineOverrides
else:
    EngineSpec = create_model(
        "EngineSpec",
        __base__=EngineOverrides,
        __module__=__name__,
        __doc__=EngineOverrides.__doc__,
        **{
            name: _optional(field)
            for name, field in EngineSettings.model_fields.items()
            if name not in SET_BY_THE_OPERATOR
        },
    )
