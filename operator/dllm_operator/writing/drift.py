"""Does a live object still say what was applied? Pure.

A live object has more than its manifest: defaults, other managers' fields, status. So the question is
whether the manifest is contained in it, and whether the manifest is still the one that was applied (its
hash, in an annotation), since a field that the manifest no longer names must go.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from dllm_operator.cluster.labels import ROLLOUT, SPEC_HASH
from dllm_operator.cluster.observe import Manifest

_KEYS = ("name", "mountPath", "containerPort", "key", "type")  # what identifies an item of a list


def with_hash(manifest: Manifest) -> Manifest:
    """The manifest with the hash of itself among its annotations. Of the template of a Deployment that
    remembers its rollouts the digest there tells: what it keeps of a live object is read back with defaults.
    """
    metadata = manifest["metadata"]
    hashed = manifest
    if ROLLOUT in metadata.get("annotations", {}):
        hashed = manifest | {"spec": {k: v for k, v in manifest["spec"].items() if k != "template"}}
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]
    annotations = dict(metadata.get("annotations", {})) | {SPEC_HASH: digest}
    return manifest | {"metadata": metadata | {"annotations": annotations}}


def has_drifted(manifest: Manifest, live: Manifest) -> bool:
    """Whether `manifest` (with its hash) must be applied to `live` again."""
    return not _contains(live, manifest)


def _contains(live: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            return not wanted and live is None
        return all(
            (_is_absent(value) and not live.get(key)) or _contains(live.get(key), value)
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(live, list) and _contains_items(live, wanted)
    return bool(live == wanted) or _is_same_quantity(live, wanted)


def _is_absent(value: Any) -> bool:
    """The API server drops empty maps, lists, strings and nulls."""
    return value is None or (isinstance(value, Mapping | list | str) and not value)


def _contains_items(live: Sequence[Any], wanted: Sequence[Any]) -> bool:
    key = next((k for k in _KEYS if all(_identity(item, k) is not None for item in wanted)), None)
    if key is None or len({item[key] for item in wanted}) != len(wanted):
        return len(live) == len(wanted) and all(map(_contains, live, wanted))
    by_key = {_identity(item, key): item for item in live}
    return all(item[key] in by_key and _contains(by_key[item[key]], item) for item in wanted)


def _identity(item: Any, key: str) -> str | int | None:
    value = item.get(key) if isinstance(item, Mapping) else None
    return value if isinstance(value, str | int) else None


def _is_same_quantity(live: Any, wanted: Any) -> bool:
    """`0.5` is stored as `500m`."""
    if not isinstance(live, str | int | float) or not isinstance(wanted, str | int | float):
        return False
    try:
        return bool(parse_quantity(live) == parse_quantity(wanted))  # type: ignore[no-untyped-call]
    except (ValueError, ArithmeticError):  # some texts are numbers that compare with none
        return False
