"""The ``dllm`` command."""

import sys

from dllm_server.cpus import limit_threads
from dllm_server.stop_signals import end_when_told


def main() -> None:
    """What must be settled before anything heavy is imported, then the commands."""
    if sys.argv[1:2] == ["serve"]:
        end_when_told()
    limit_threads()
    from dllm_server.cli.commands import cli

    cli(prog_name="dllm")
