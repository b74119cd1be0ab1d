"""``python -m dllm_server.cli``."""

from dllm_server.cli.main import main

main()
