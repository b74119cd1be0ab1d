"""What all types of the resource share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """A part of the resource: camelCase in JSON, snake_case in Python, immutable, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    def manifest(self) -> dict[str, Any]:
        """As Kubernetes writes it: camelCase JSON values of the fields that are set or have a default."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
