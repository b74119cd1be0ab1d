"""Why a server ended, in sentences that are known beforehand: nothing in them but whole numbers and names of
settings comes from what it was given.

The operator writes them into the status of resources, whose readers may not read Secrets, and any container
can claim to be a server. Imports neither torch nor the engine.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from dllm_server.settings import ServeSettings, rule_of

MOST_NUMBER = 2**53 - 1
_GIB = 1024**3
_SETTING, _RULE = "setting", "rule"


class Cause(StrEnum):
    """Codes of the sentences in ``SENTENCES``."""

    START = "Start"
    SETTING = "Setting"
    SETTINGS = "Settings"
    KEYS_FILE = "KeysFile"
    ADDRESS = "Address"
    PACKAGE = "Package"
    CPU_IMAGE = "CpuImage"
    NO_CUDA_DEVICE = "NoCudaDevice"
    TRITON_WITHOUT_CUDA = "TritonWithoutCuda"
    MODEL = "Model"
    NO_MODEL = "NoModel"
    NO_CONFIG = "NoConfig"
    ARCHITECTURE = "Architecture"
    QUANTISED = "Quantised"
    NO_WEIGHTS = "NoWeights"
    LFS_POINTER = "LfsPointer"
    HUB_OFFLINE = "HubOffline"
    HUB_UNREACHABLE = "HubUnreachable"
    HUB_CACHE = "HubCache"
    HUB_GATED = "HubGated"
    HUB_REVISION = "HubRevision"
    HUB_MODEL = "HubModel"
    HUB_TOKEN = "HubToken"  # noqa: S105 - a name
    HUB_FORBIDDEN = "HubForbidden"
    HUB_ANSWER = "HubAnswer"
    BUDGET = "Budget"
    WEIGHTS_TOO_LARGE = "WeightsTooLarge"
    RESERVE_TOO_LARGE = "ReserveTooLarge"
    ACTIVATIONS_TOO_LARGE = "ActivationsTooLarge"
    LOGITS_TOO_LARGE = "LogitsTooLarge"
    KV_POOL_TOO_SMALL = "KvPoolTooSmall"
    MODEL_LEN = "ModelLen"
    TOKENS_BELOW_LEN = "TokensBelowLen"
    TOKENS_BELOW_BLOCKS = "TokensBelowBlocks"
    BLOCK_ABOVE_LEN = "BlockAboveLen"
    DEVICE_MEMORY = "DeviceMemory"
    DEVICE_MEMORY_AT_START = "DeviceMemoryAtStart"
    ENGINE = "Engine"
    ENGINE_EXIT = "EngineExit"
    ENGINE_SIGNAL = "EngineSignal"
    ENGINE_EXIT_AT_START = "EngineExitAtStart"
    ENGINE_SIGNAL_AT_START = "EngineSignalAtStart"


_NEED = "need {needed_bytes} but {left_bytes} of {usable_bytes} usable are left"
_LOG = "the server's log has more"

SENTENCES: Mapping[Cause, str] = {
    Cause.START: f"the server cannot start: {_LOG}",
    Cause.SETTING: "{setting} has a value that the server does not take: give {rule}",
    Cause.SETTINGS: f"the settings do not go together: {_LOG}",
    Cause.KEYS_FILE: "the file of API keys cannot be read: check the Secret, its key and its text (UTF-8)",
    Cause.ADDRESS: "the server cannot listen on its address: choose another port or host",
    Cause.PACKAGE: "a Python package is missing: build the image with the extra `server`",
    Cause.CPU_IMAGE: "device cuda was asked for, but PyTorch is built for CPUs: use an image built with "
    "DEVICE=cuda, or device cpu",
    Cause.NO_CUDA_DEVICE: "device cuda was asked for, but PyTorch sees no CUDA device: check the driver and "
    "that the container is given a GPU, or use device cpu",
    Cause.TRITON_WITHOUT_CUDA: "kernel_backend triton needs a CUDA device: use auto or torch",
    Cause.MODEL: f"the model cannot be served: {_LOG}",
    Cause.NO_MODEL: "there is no such model: no directory of that name, and no hub id (owner/name)",
    Cause.NO_CONFIG: "config.json is not there or not to be read: give the directory that holds it",
    Cause.ARCHITECTURE: "config.json names no architecture that is supported: serve another checkpoint",
    Cause.QUANTISED: "the weights are quantised: serve the float32, float16 or bfloat16 checkpoint",
    Cause.NO_WEIGHTS: "the weights are not all there as safetensors files beside config.json: download them "
    f"again; {_LOG}",
    Cause.LFS_POINTER: "a file is a Git LFS pointer, not the file itself: run `git lfs pull`, or download "
    "the model from the hub",
    Cause.HUB_OFFLINE: "HF_HUB_OFFLINE is set, and the cache does not hold the model: unset it, or fetch the "
    "model first",
    Cause.HUB_UNREACHABLE: "the hub cannot be reached, and the cache does not hold the model: check the "
    "network, HF_ENDPOINT and proxies, or put the weights on a volume",
    Cause.HUB_CACHE: "the hub's cache cannot be written: give it a volume with room that may be written",
    Cause.HUB_GATED: "the model is gated: accept its terms, and use a token of that account",
    Cause.HUB_REVISION: "the hub has no such revision of the model: check the revision",
    Cause.HUB_MODEL: "the hub has no such model, or hides it as private: check the name, or use a token that "
    "may read it",
    Cause.HUB_TOKEN: "the hub does not know the token: renew or remove it",
    Cause.HUB_FORBIDDEN: "the token may not read the model: give it the right to",
    Cause.HUB_ANSWER: "the hub answers {status}: try again later, or put the weights on a volume",
    Cause.BUDGET: f"the settings do not fit the device: {_LOG}",
    Cause.WEIGHTS_TOO_LARGE: f"weights {_NEED}: use a smaller model, bfloat16 or a larger device",
    Cause.RESERVE_TOO_LARGE: f"reserve {_NEED}: raise gpu_memory_utilization or use a larger device",
    Cause.ACTIVATIONS_TOO_LARGE: f"activations {_NEED}: lower max_num_batched_tokens",
    Cause.LOGITS_TOO_LARGE: f"logits {_NEED}: lower max_num_logits",
    Cause.KV_POOL_TOO_SMALL: "kv_pool has {pool_bytes} but one request of {max_model_len} tokens needs "
    "{needed_bytes}: lower max_model_len, retention_ratio or max_num_batched_tokens",
    Cause.MODEL_LEN: "max_model_len {max_model_len} exceeds the model's {longest}: lower it or use a "
    "longer-context model",
    Cause.TOKENS_BELOW_LEN: "max_num_batched_tokens {max_num_batched_tokens} is below max_model_len "
    "{max_model_len}, but a refresh runs a sequence whole: raise the one or lower the other",
    Cause.TOKENS_BELOW_BLOCKS: "max_num_batched_tokens {max_num_batched_tokens} is below two blocks of "
    "{block_length} tokens, which a step must hold: raise it",
    Cause.BLOCK_ABOVE_LEN: "block_length {block_length} exceeds max_model_len {max_model_len}: "
    "lower block_length",
    Cause.DEVICE_MEMORY: "the device ran out of memory outside of what the engine can contain; "
    "the log has more",
    Cause.DEVICE_MEMORY_AT_START: "the device refused memory while the server started: use a smaller model, "
    "smaller budgets or a device that nothing else uses",
    Cause.ENGINE: f"the engine process ended: {_LOG}",
    Cause.ENGINE_EXIT: "the engine process ended with exit code {code}",
    Cause.ENGINE_SIGNAL: "the engine process was ended by signal {signal}",
    Cause.ENGINE_EXIT_AT_START: "the engine process ended with exit code {code} while starting",
    Cause.ENGINE_SIGNAL_AT_START: "the engine process was ended by signal {signal} while starting",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """A cause with the numbers of its sentence and, where that names one, the setting."""

    cause: Cause
    numbers: Mapping[str, int] = field(default_factory=dict)
    setting: str | None = None

    @classmethod
    def read(cls, cause: Any, numbers: Any, setting: Any) -> Self | None:
        """Of values from a container, which may be anything; None unless they make exactly one sentence."""
        if not isinstance(cause, str) or cause not in Cause.__members__.values():
            return None
        names = _places(Cause(cause))
        is_named = isinstance(setting, str) and setting in ServeSettings.model_fields
        if (_SETTING in names) is not is_named or not isinstance(numbers, dict):
            return None
        wanted = names - {_SETTING, _RULE}
        if numbers.keys() != wanted or not all(map(_is_number, numbers.values())):
            return None
        return cls(Cause(cause), numbers, setting if is_named else None)

    def __str__(self) -> str:
        values: dict[str, object] = {name: _text(name, value) for name, value in self.numbers.items()}
        if self.setting is not None:
            values |= {_SETTING: self.setting, _RULE: rule_of(self.setting)}
        return SENTENCES[self.cause].format(**values)


def _places(cause: Cause) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(SENTENCES[cause]) if name}


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_NUMBER


def _text(name: str, value: int) -> str:
    return f"{value / _GIB:.2f} GiB" if name.endswith("_bytes") else str(value)
