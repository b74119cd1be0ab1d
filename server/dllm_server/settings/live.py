"""What may change while serving, and the tuning file that changes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class LiveSettings(BaseModel):
    """What may change while serving; the watched tuning file holds these fields and a generation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_num_batched_tokens: int = Field(4096, ge=1, description="Query tokens of a step (the token budget).")
    max_num_seqs: int = Field(64, ge=1, le=4096, description="Requests in flight.")
    max_num_logits: int = Field(2048, ge=1, description="Rows projected to the vocabulary at once.")
    refresh_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of the token budget that refreshes and prefills may take while others reuse or "
        "denoise; prefills take more while more requests wait than run, and less where few wait.",
    )
    admission_watermark: float = Field(
        0.0, ge=0, lt=1, description="Share of the KV pages kept free when admitting, unless nothing runs."
    )


class TuningFile(BaseModel):
    """Content of the tuning file: a generation and the live settings it changes (absent ones keep their
    start value). A checksum, where there is one, must be that of the other fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generation: int = Field(0, ge=0, description="Grows with each change; reported once applied.")
    checksum: str | None = Field(None, description="SHA-256 of the other fields, see ``checksum_of``.")
    max_num_batched_tokens: int | None = Field(None, ge=1)
    max_num_seqs: int | None = Field(None, ge=1, le=4096)
    max_num_logits: int | None = Field(None, ge=1)
    refresh_share: float | None = Field(None, gt=0, le=1)
    admission_watermark: float | None = Field(None, ge=0, lt=1)

    @staticmethod
    def checksum_of(document: Mapping[str, Any]) -> str:
        """Hex SHA-256 of the document without its checksum, as JSON with sorted keys, no spaces and ASCII
        only."""
        rest = {name: value for name, value in document.items() if name != "checksum"}
        canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @model_validator(mode="before")
    @classmethod
    def _checksum_is_that_of_the_rest(cls, document: Any) -> Any:
        if isinstance(document, dict) and document.get("checksum") is not None:
            expected = cls.checksum_of(document)
            if document["checksum"] != expected:
                raise ValueError(
                    f"checksum {document['checksum']} is not that of the content, {expected}: "
                    "write the file with its generator"
                )
        return document

    def apply_to(self, start: LiveSettings) -> LiveSettings:
        changes = self.model_dump(exclude={"generation", "checksum"}, exclude_none=True)
        return LiveSettings.model_validate(start.model_dump() | changes)
