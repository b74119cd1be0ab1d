"""Where a model comes from, as `spec.model.source` writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dllm_server.settings import EMBEDDED_MODEL

PVC_SCHEME = "pvc://"
_PART = "[A-Za-z0-9_][A-Za-z0-9._-]*"
HUB_PATTERN = f"^{_PART}/{_PART}$"
PVC_PATTERN = "^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9._@+=-]+)*$"
DOT_SEGMENT_PATTERN = r"/[.]{1,2}(/|$)"


@dataclass(frozen=True, slots=True)
class EmbeddedSource:
    """The model inside the server's package."""


@dataclass(frozen=True, slots=True)
class HubSource:
    """A model of the hub, downloaded by the server."""

    id: str


@dataclass(frozen=True, slots=True)
class PvcSource:
    """A directory of a PersistentVolumeClaim; ``path`` is relative to the volume, "" is its root."""

    claim: str
    path: str


class ModelSource:
    """Reads `spec.model.source`."""

    @staticmethod
    def parse(text: str) -> EmbeddedSource | HubSource | PvcSource:
        """``ValueError`` names the text and the three ways to write a source."""
        if text == EMBEDDED_MODEL:
            return EmbeddedSource()
        if re.fullmatch(PVC_PATTERN, text) and not re.search(DOT_SEGMENT_PATTERN, text):
            claim, _, path = text.removeprefix(PVC_SCHEME).partition("/")
            return PvcSource(claim, path)
        if re.fullmatch(HUB_PATTERN, text):
            return HubSource(text)
        raise ValueError(
            f"source {text!r} is not a model: write '{EMBEDDED_MODEL}', a hub id 'ORG/NAME', or "
            "'pvc://CLAIM/PATH' with a path without '.', '..' and empty parts"
        )
