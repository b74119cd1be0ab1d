"""The ``dllm`` command."""

from dllm_server.cli.main import main

__all__ = ["main"]
