"""`spec.podTemplate.env`: variables of the engine's container, without those that the operator sets."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from dllm_operator.api.base import ApiModel
from dllm_operator.api.cel import Rule, validations
from dllm_operator.api.engine import EngineSpec
from dllm_operator.api.kubernetes_types import KeyName, ObjectName
from dllm_operator.api.quantity import Quantity

SETTING_PREFIX = "DLLM_"
OPERATORS_OWN = "nothing: the operator chooses it"

RESERVED: Mapping[str, str] = MappingProxyType(
    {
        "DLLM_API_KEYS_FILE": "spec.auth.apiKeysSecret",
        "DLLM_DEVICE": "spec.device",
        "DLLM_METRICS_PORT": OPERATORS_OWN,
        "DLLM_MODEL": "spec.model.source",
        "DLLM_PORT": "spec.networking.port",
        "DLLM_REQUEST_TIMEOUT_SECONDS": "spec.networking.requestTimeoutSeconds",
        "DLLM_REVISION": "spec.model.revision",
        "DLLM_SERVED_MODEL_NAME": "spec.model.servedName",
        "DLLM_SHUTDOWN_DELAY_SECONDS": OPERATORS_OWN,
        "DLLM_SHUTDOWN_GRACE_SECONDS": "spec.networking.requestTimeoutSeconds",
        "DLLM_TERMINATION_LOG": OPERATORS_OWN,
        "DLLM_TUNING_FILE": "spec.tuning",
        "HF_HOME": "spec.model.cache",
        "HF_TOKEN": "spec.model.tokenSecret",
        "HUGGING_FACE_HUB_TOKEN": "spec.model.tokenSecret",
        "TORCHINDUCTOR_CACHE_DIR": OPERATORS_OWN,
        "TRITON_CACHE_DIR": OPERATORS_OWN,
    }
    | {f"{SETTING_PREFIX}{name.upper()}": f"spec.engine.{to_camel(name)}" for name in EngineSpec.model_fields}
)
"""What the operator sets itself, and the field of the resource to use instead. Names are in capitals: the
server reads its settings in any case."""

_IS_SETTING = f"self.name.upperAscii().startsWith('{SETTING_PREFIX}')"
_FIELDS = "{" + ", ".join(f"'{name}': '{field}'" for name, field in sorted(RESERVED.items())) + "}"


class KeyReference(ApiModel):
    """A key of a Secret or ConfigMap in the resource's namespace."""

    name: ObjectName = Field(description="Name of the object.")
    key: KeyName = Field(description="The key.")
    optional: bool | None = Field(None, description="Whether pods start without it.")


class FieldReference(ApiModel):
    """A field of the pod."""

    api_version: str | None = Field(None, max_length=64, description="Version of the path; v1 if unset.")
    field_path: str = Field(min_length=1, max_length=512, description="The field, e.g. metadata.name.")


class ResourceReference(ApiModel):
    """A limit or request of a container."""

    container_name: str | None = Field(
        None, max_length=63, description="The container; the engine's if unset."
    )
    resource: str = Field(min_length=1, max_length=317, description="What, e.g. limits.memory.")
    divisor: Quantity | None = Field(None, description="Unit of the value; 1 if unset.")


class EnvSource(ApiModel):
    """Where a value comes from; one of them."""

    secret_key_ref: KeyReference | None = Field(None, description="A key of a Secret.")
    config_map_key_ref: KeyReference | None = Field(None, description="A key of a ConfigMap.")
    field_ref: FieldReference | None = Field(None, description="A field of the pod.")
    resource_field_ref: ResourceReference | None = Field(
        None, description="A limit or request of a container."
    )


class EnvVar(ApiModel):
    """An environment variable of the engine's container."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            Rule(
                rule=f"!(self.name.upperAscii() in {_FIELDS})",
                message="env sets a variable that the operator sets itself: remove it and use the field of "
                "the resource",
                naming="env '{self.name}' is set by the operator itself: remove it and use "
                f"{{{_FIELDS}[self.name.upperAscii()]}}",
                field_path=".name",
                reason="FieldValueForbidden",
            ),
            Rule(
                rule=f"!{_IS_SETTING} || (!has(self.valueFrom) "
                "&& (!has(self.value) || !self.value.contains('$(')))",
                message="env takes a setting of the server from elsewhere: give its value here, without "
                "valueFrom and $(...)",
                naming="env '{self.name}' takes a setting of the server from elsewhere: give its value here, "
                "without valueFrom and $(...)",
                reason="FieldValueForbidden",
            ),
            Rule(
                rule="!has(self.value) || !has(self.valueFrom)",
                message="env has both value and valueFrom: remove one",
                naming="env '{self.name}' has both value and valueFrom: remove one",
            ),
        )
    )

    name: str = Field(
        pattern="^[-._a-zA-Z][-._a-zA-Z0-9]*$", max_length=256, description="Name of the variable."
    )
    value: str | None = Field(None, max_length=32768, description="Its value.")
    value_from: EnvSource | None = Field(
        None,
        description="Where its value comes from: secretKeyRef, configMapKeyRef, fieldRef, resourceFieldRef.",
    )

    @property
    def problem(self) -> str | None:
        """What the rules say of it: resources that are older than a rule are not asked again by the API
        server."""
        name = self.name.upper()
        if name in RESERVED:
            return f"is set by the operator itself: remove it and use {RESERVED[name]}"
        is_plain = self.value_from is None and "$(" not in (self.value or "")
        if name.startswith(SETTING_PREFIX) and not is_plain:
            remedy = "give its value here, without valueFrom and $(...)"
            return f"takes a setting of the server from elsewhere: {remedy}"
        return None
