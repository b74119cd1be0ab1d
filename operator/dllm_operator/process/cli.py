"""The ``dllm-operator`` command."""

from dllm_server.stop_signals import end_when_told


def main() -> None:
    """What a signal to stop does is settled before anything heavy is imported."""
    end_when_told()
    from dllm_operator.process.commands import cli

    cli(prog_name="dllm-operator")


if __name__ == "__main__":
    main()
