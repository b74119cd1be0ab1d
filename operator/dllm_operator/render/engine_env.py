"""Engine settings as the environment of `dllm serve`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

from dllm_server.settings import TuningFile

from dllm_operator.api.v1alpha1 import (
    ApiKeysSecret,
    DLLMDeploymentSpec,
    EmbeddedSource,
    HubSource,
    ModelSource,
    PvcSource,
)
from dllm_operator.planning.plan import PoolPlan

LEAVE_SECONDS = 5
METRICS_PORTS = (9464, 9465)
"""The second where the API has the first."""
CACHE = PurePosixPath("/var/cache/dllm")
MODELS = PurePosixPath("/models")
TUNING_FILE = PurePosixPath("/etc/dllm/tuning/tuning.json")
KEYS_FILE = PurePosixPath("/etc/dllm/auth/keys")


def engine_env(spec: DLLMDeploymentSpec, pool: PoolPlan) -> list[dict[str, Any]]:
    """Variables in a fixed order: the operator's, the engine block's, then the user's own, which are others
    (``EnvVar``). What is written here refers to no variable, so that none comes into a setting."""
    networking = spec.networking
    values: dict[str, Any] = {
        "DLLM_MODEL": model_argument(spec.model.source),
        "DLLM_DEVICE": spec.device,
        "DLLM_PORT": networking.port,
        "DLLM_METRICS_PORT": metrics_port(spec),
        "DLLM_TUNING_FILE": TUNING_FILE,
        "DLLM_REQUEST_TIMEOUT_SECONDS": networking.request_timeout_seconds,
        # Clients of open connections move on before requests are refused.
        "DLLM_SHUTDOWN_DELAY_SECONDS": LEAVE_SECONDS,
        # Draining waits as long as a request may take, so that a rollout cuts none off.
        "DLLM_SHUTDOWN_GRACE_SECONDS": networking.request_timeout_seconds,
        "HF_HOME": CACHE / "huggingface",
        "TRITON_CACHE_DIR": CACHE / "triton",
        "TORCHINDUCTOR_CACHE_DIR": CACHE / "inductor",
    }
    if spec.model.revision is not None:
        values["DLLM_REVISION"] = spec.model.revision
    if spec.model.served_name is not None:
        values["DLLM_SERVED_MODEL_NAME"] = spec.model.served_name
    if api_keys_secret(spec) is not None:
        values["DLLM_API_KEYS_FILE"] = KEYS_FILE
    values |= {f"DLLM_{name.upper()}": value for name, value in sorted(pool.engine.items())}
    env: list[dict[str, Any]] = [{"name": name, "value": _text(value)} for name, value in values.items()]
    token = spec.model.token_secret
    if token is not None:
        reference = {"secretKeyRef": {"name": token.name, "key": token.key}}
        env.append({"name": "HF_TOKEN", "valueFrom": reference})
    return env + [variable.manifest() for variable in spec.pod_template.env]


def metrics_port(spec: DLLMDeploymentSpec) -> int:
    """Where pods tell their metrics, whoever may ask for them: never the API's port."""
    first, second = METRICS_PORTS
    return first if spec.networking.port != first else second


def api_keys_secret(spec: DLLMDeploymentSpec) -> ApiKeysSecret | None:
    """The Secret of bearer keys; None leaves the API open."""
    return spec.auth.api_keys_secret if spec.auth is not None else None


def model_argument(source: str) -> str:
    """What `dllm serve` is given: `embedded`, a hub id, or the directory of a mounted claim."""
    match ModelSource.parse(source):
        case EmbeddedSource():
            return "embedded"
        case HubSource(id=hub_id):
            return hub_id
        case PvcSource(path=path):
            return str(MODELS / path)


def tuning_document(generation: int = 0, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Content of the tuning file the engine watches; its checksum tells an edit by hand."""
    document = {"generation": generation, **(settings or {})}
    return document | {"checksum": TuningFile.checksum_of(document)}


def _text(value: Any) -> str:
    """Without references to variables: the kubelet reads ``$(NAME)`` as one, and ``$$`` as a dollar."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).replace("$", "$$")
