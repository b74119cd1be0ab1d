"""``python -m dllm_server.cli``."""

from dllm_server.cli import main

main()
