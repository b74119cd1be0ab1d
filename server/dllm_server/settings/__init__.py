"""Every knob, once: CLI flags, ``DLLM_...`` environment, YAML files, JSON schema and the tuning file come
from these models.

Imports neither torch nor the engine, so that the operator and ``dllm --help`` stay light.
"""

from dllm_server.settings.api import ApiSettings, ToolCallParser, UnknownParameters
from dllm_server.settings.byte_size import LEAST_MEMORY_BYTES, ByteSize, MemorySize, parse_bytes
from dllm_server.settings.decoding import Confidence, DiffusionSettings, Strategy, UnmaskingSettings
from dllm_server.settings.engine import (
    EMBEDDED_MODEL,
    Device,
    Dtype,
    EngineSettings,
    KernelBackend,
    KvSelection,
    LoadFormat,
)
from dllm_server.settings.live import LiveSettings, TuningFile
from dllm_server.settings.log import LogFormat, LogSettings
from dllm_server.settings.serve import ServeSettings, read_yaml_mapping, rule_of

__all__ = [
    "EMBEDDED_MODEL",
    "LEAST_MEMORY_BYTES",
    "ApiSettings",
    "ByteSize",
    "Confidence",
    "Device",
    "DiffusionSettings",
    "Dtype",
    "EngineSettings",
    "KernelBackend",
    "KvSelection",
    "LiveSettings",
    "LoadFormat",
    "LogFormat",
    "LogSettings",
    "MemorySize",
    "ServeSettings",
    "Strategy",
    "ToolCallParser",
    "TuningFile",
    "UnknownParameters",
    "UnmaskingSettings",
    "parse_bytes",
    "read_yaml_mapping",
    "rule_of",
]
