"""`spec.model`: the model and where its files come from."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from dllm_operator.api.base import ApiModel
from dllm_operator.api.cel import Rule, validations
from dllm_operator.api.kubernetes_types import KeyName, ObjectName
from dllm_operator.api.quantity import Quantity, has_more_zeros
from dllm_operator.api.source import DOT_SEGMENT_PATTERN, HUB_PATTERN, PVC_PATTERN

_FROM_HUB = "(self.source != 'embedded' && !self.source.startsWith('pvc://'))"

_SOURCE_RULES = validations(
    Rule(
        rule=f"self == 'embedded' || self.matches('{PVC_PATTERN}') || self.matches('{HUB_PATTERN}')",
        message="source is not a model: write 'embedded', a hub id 'ORG/NAME', or 'pvc://CLAIM/PATH'",
        naming="source '{self}' is not a model: write 'embedded', a hub id 'ORG/NAME', or 'pvc://CLAIM/PATH'",
    ),
    Rule(
        rule=f"!self.startsWith('pvc://') || !self.matches('{DOT_SEGMENT_PATTERN}')",
        message="source leaves its directory with '.' or '..': write the path from the root of the volume",
        naming="source '{self}' leaves its directory with '.' or '..': write the path from the volume's root",
    ),
)


def _same(field: str) -> str:
    """CEL: an optional text is as before."""
    now, before = (f"(has({side}.{field}) ? {side}.{field} : '')" for side in ("self", "oldSelf"))
    return f"{now} == {before}"


class AccessMode(StrEnum):
    ONE_NODE = "ReadWriteOnce"
    MANY_NODES = "ReadWriteMany"


class TokenSecret(ApiModel):
    """A key of a Secret in the resource's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: KeyName = Field("token", description="Key whose value is the token.")


class ModelCache(ApiModel):
    """A volume that keeps downloaded weights, so that a new pod does not download them again."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            Rule(
                rule="has(self.claimName) != has(self.size)",
                message="cache needs exactly one of claimName (a claim you own) and size (a claim made here)",
            ),
            Rule(
                rule=f"!has(self.size) || {has_more_zeros('self.size')} "
                "|| quantity(string(self.size)).compareTo(quantity('0')) > 0",
                message="size is 0: give the cache room, e.g. 50Gi",
                field_path=".size",
            ),
            Rule(
                rule="has(self.size) || !has(self.storageClassName)",
                message="storageClassName belongs to the claim that size makes: set size, or remove it",
                naming="storageClassName '{self.storageClassName}' belongs to the claim that size makes: "
                "set size, or remove it",
                field_path=".storageClassName",
                reason="FieldValueForbidden",
            ),
            Rule(
                rule="has(self.size) || !has(self.accessMode)",
                message="accessMode belongs to the claim that size makes: set size, or remove it",
                field_path=".accessMode",
                reason="FieldValueForbidden",
            ),
            Rule(
                rule="self == oldSelf || (has(self.size) && has(oldSelf.size) "
                f"&& ({has_more_zeros('self.size', 'oldSelf.size')} "
                "|| quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0) "
                f"&& {_same('accessMode')} && {_same('storageClassName')})",
                message="cache cannot be changed, but size may grow: remove it from the resource first (a "
                "claim made by size is deleted with it), then add the new one",
            ),
        )
    )

    claim_name: ObjectName | None = Field(
        None,
        description="A PersistentVolumeClaim of the namespace; all pods mount it: with ReadWriteOnce they "
        "stay on one node, in one pool.",
    )
    size: Quantity | None = Field(
        None,
        description="Size of a claim that the operator makes and deletes with the resource, e.g. 50Gi; it "
        "may grow where the storage class lets it.",
    )
    access_mode: AccessMode = Field(
        default_factory=lambda: AccessMode.ONE_NODE,
        description="How nodes mount the claim that size makes: ReadWriteOnce (all pods on one node, "
        "in one pool) if unset, or ReadWriteMany.",
    )
    storage_class_name: ObjectName | None = Field(
        None, description="Storage class of that claim; the cluster's default if unset."
    )


class ModelSpec(ApiModel):
    """The model to serve."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            Rule(
                rule=f"!has(self.revision) || {_FROM_HUB}",
                message="revision is of a hub id: remove it, or set source to 'ORG/NAME'",
                naming="revision '{self.revision}' is of a hub id, which source '{self.source}' is not: "
                "remove it, or set source to 'ORG/NAME'",
                field_path=".revision",
                reason="FieldValueForbidden",
            ),
            Rule(
                rule=f"!has(self.cache) || {_FROM_HUB}",
                message="cache keeps downloads, and only a hub id is downloaded: remove cache",
                naming="cache keeps downloads, and source '{self.source}' is not downloaded: "
                "remove cache, or set source to a hub id 'ORG/NAME'",
                field_path=".cache",
                reason="FieldValueForbidden",
            ),
            Rule(
                rule=f"!has(self.tokenSecret) || {_FROM_HUB}",
                message="tokenSecret is for the hub, and only a hub id is downloaded: remove tokenSecret",
                naming="tokenSecret is for the hub, and source '{self.source}' is not downloaded: "
                "remove tokenSecret, or set source to a hub id 'ORG/NAME'",
                field_path=".tokenSecret",
                reason="FieldValueForbidden",
            ),
        )
    )

    source: str = Field(
        min_length=1,
        max_length=512,
        description="The model: 'embedded' (inside the server image), a hub id 'ORG/NAME', or "
        "'pvc://CLAIM/PATH' (a directory of a PersistentVolumeClaim). It changes only while replicas is 0.",
        json_schema_extra=_SOURCE_RULES,
    )
    revision: str | None = Field(
        None, min_length=1, max_length=256, description="Branch, tag or commit of a hub id."
    )
    served_name: str | None = Field(
        None, min_length=1, max_length=256, description="Name in the API; the model's own if unset."
    )
    token_secret: TokenSecret | None = Field(None, description="Token for gated or private hub models.")
    cache: ModelCache | None = Field(
        None, description="Volume for downloaded weights; each pod downloads its own copy if unset."
    )
