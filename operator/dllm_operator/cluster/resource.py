"""A DLLMDeployment as the reconcile sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from dllm_operator.api.v1alpha1 import API_VERSION, KIND, DLLMDeploymentSpec
from dllm_operator.api.validation import check_spec


@dataclass(frozen=True, slots=True)
class Resource:
    """``spec`` is None where ``problems`` say what is wrong with it; ``status`` is the last one written."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: DLLMDeploymentSpec | None
    problems: tuple[str, ...] = ()
    status: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Resource:
        """From a live manifest; an invalid spec becomes ``problems`` instead of an exception."""
        metadata = body["metadata"]
        spec, problems = _parse_spec(body.get("spec") or {})
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            generation=metadata["generation"],
            spec=spec,
            problems=problems,
            status=body.get("status") or {},
        )

    @property
    def owner_reference(self) -> dict[str, Any]:
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def _parse_spec(raw: Mapping[str, Any]) -> tuple[DLLMDeploymentSpec | None, tuple[str, ...]]:
    try:
        spec = DLLMDeploymentSpec.model_validate(raw)
    except ValidationError as error:
        return None, tuple(_describe(detail) for detail in error.errors(include_url=False))
    problems = tuple(check_spec(spec))
    return (None, problems) if problems else (spec, ())


def _describe(detail: Mapping[str, Any]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    return f"spec{path}: {detail['msg']}"
