"""What a Deployment remembers of its rollouts, in an annotation: why its template came, which one was good
before, which one it went back from. Pure.

It stands beside the template that it tells of, so that both are written at once and outlive the operator.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dllm_operator.api.v1alpha1 import DLLMDeploymentSpec
from dllm_operator.cluster.labels import ROLLOUT
from dllm_operator.cluster.observe import Manifest

_NOT_IN_TEMPLATE = ("replicas", "autoscaling", "rollout", "monitoring", "gpuPools")


class Cause(StrEnum):
    AUTHOR = "Author"  # an edit of the resource
    RELEASE = "Release"  # another default image, or another version of the operator
    CLUSTER = "Cluster"  # the tuner, or what the nodes offer


@dataclass(frozen=True, slots=True)
class Undone:
    """A template that did not become ready and was gone back from."""

    template: str
    cause: Cause
    release: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """``template`` and ``author`` are digests, ``release`` is the name, of what the Deployment's template was
    made of. ``good_revision`` is the Deployment's revision that served completely before it,
    ``good_template`` the digest of that. ``has_turn``: pods that served were at stake."""

    template: str
    author: str
    release: str
    cause: Cause = Cause.AUTHOR
    has_turn: bool = False
    good_revision: str = ""
    good_template: str = ""
    undone: Undone | None = None


_RECORD = TypeAdapter(RolloutRecord)


def record_of(live: Manifest) -> RolloutRecord | None:
    """None where there is none, or none that this version understands."""
    text = (live["metadata"].get("annotations") or {}).get(ROLLOUT)
    return _parse(text) if text is not None else None


@lru_cache(maxsize=4096)
def _parse(text: str) -> RolloutRecord | None:
    try:
        return _RECORD.validate_json(text)
    except ValidationError:
        return None


def with_record(manifest: Manifest, record: RolloutRecord) -> Manifest:
    """A Deployment that remembers it."""
    metadata = manifest["metadata"]
    text = _RECORD.dump_json(record, exclude_defaults=True).decode()
    annotations = dict(metadata.get("annotations") or {}) | {ROLLOUT: text}
    return manifest | {"metadata": metadata | {"annotations": annotations}}


def template_digest(template: Manifest) -> str:
    """Of a template as rendered."""
    return _digest(template)


def author_digest(spec: DLLMDeploymentSpec, pool: str) -> str:
    """Of what the resource's author says about the pods of ``pool``; numbers of pods are not part of it."""
    said = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    own = [each for each in said.get("gpuPools", ()) if each["name"] == pool]
    kept = {name: value for name, value in said.items() if name not in _NOT_IN_TEMPLATE}
    kept["pool"] = [{name: value for name, value in each.items() if name != "replicas"} for each in own]
    return _digest(kept)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
