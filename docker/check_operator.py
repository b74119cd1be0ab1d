"""Fail the build when a module of the operator cannot be imported, or when torch can."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys

import dllm_operator

for module in pkgutil.walk_packages(dllm_operator.__path__, "dllm_operator."):
    importlib.import_module(module.name)
importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")  # of the extra otel
if importlib.util.find_spec("torch") is not None:
    sys.exit("torch is installed: the operator must do without")
