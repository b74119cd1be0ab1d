"""A DLLMDeployment as the reconcile sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from dllm_operator.api.v1alpha1 import API_VERSION, KIND, DLLMDeploymentSpec, ModelSource, PvcSource
from dllm_operator.api.validation import check_spec

MOST_CHARACTERS = 64 * 1024  # of a spec as JSON; each pool's Deployment repeats most of it
SIZE = "specCharacters"  # beside metadata of a resource whose spec has more and is left out


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
        metadata, bounded = body["metadata"], without_large_spec(body)
        spec, problems = _parse_spec(bounded.get("spec") or {})
        if SIZE in bounded:
            spec, problems = None, (_too_large(bounded[SIZE]),)
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
            generation=metadata["generation"],
            spec=spec,
            problems=problems,
            status=body.get("status") or {},
        )

    def refused(self, problem: str) -> Resource:
        """The same with a spec that makes no sense on this cluster."""
        return replace(self, spec=None, problems=(problem,))

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


def without_large_spec(body: Mapping[str, Any]) -> dict[str, Any]:
    """A live manifest that anybody may have made as large as the API server stores."""
    size = len(json.dumps(body.get("spec"), ensure_ascii=False))
    return dict(body) if size <= MOST_CHARACTERS else dict(body) | {"spec": {}, SIZE: size}


def _too_large(size: int) -> str:
    return (
        f"spec: {size} characters of JSON are more than the {MOST_CHARACTERS} that the operator takes: keep "
        "large values in a ConfigMap or a Secret, and refer to them by valueFrom"
    )


def manager_of(body: Mapping[str, Any]) -> str | None:
    """The Lease (``NAMESPACE/NAME``) of the operator that has claimed a live resource."""
    manager: str | None = (body.get("status") or {}).get("managedBy")
    return manager


def claim_names(spec: DLLMDeploymentSpec) -> list[str]:
    """Claims of the author's that every pod mounts."""
    source, cache = ModelSource.parse(spec.model.source), spec.model.cache
    names = [source.claim] if isinstance(source, PvcSource) else []
    return names + ([cache.claim_name] if cache is not None and cache.claim_name is not None else [])


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
