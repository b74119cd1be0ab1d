"""`dllm-operator run` and `dllm-operator crd`."""

from __future__ import annotations

import asyncio
from typing import Any

import click
from dllm_server.extras import MissingPackageError, is_foreign, missing
from dllm_server.stop_signals import leave
from dllm_server.tracing import open_tracer
from pydantic import ValidationError

from dllm_operator.process.settings import OperatorSettings


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """The operator of DLLMDeployment resources."""


def _options(command: Any) -> Any:
    """A flag for every field of the settings; what is not given comes from the environment."""
    for name, field in reversed(OperatorSettings.model_fields.items()):
        flag = f"--{name.replace('_', '-')}"
        command = click.option(
            flag, name, default=None, help=f"{field.description} [DLLM_OPERATOR_{name.upper()}]"
        )(command)
    return command


@cli.command()
@_options
def run(**flags: str | None) -> None:
    """Lead or stand by, and reconcile, until told to stop."""
    try:
        from dllm_server.logs import configure_logging

        from dllm_operator.process.operator import run_operator
    except ImportError as error:
        if not is_foreign(error):
            raise
        raise click.ClickException(str(missing("dllm-operator run", ["operator"], error))) from error
    try:
        settings = OperatorSettings(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        problems = (f"{_spellings(e['loc'])}: {e['msg']}" for e in error.errors(include_url=False))
        raise click.ClickException("; ".join(problems)) from error
    try:
        tracer = open_tracer("dllm-operator")
    except (ValueError, MissingPackageError) as error:
        raise click.ClickException(str(error)) from error
    configure_logging(settings)

    async def run_and_leave() -> None:
        code = await run_operator(settings, tracer)
        if tracer is not None:
            tracer.close()
        leave(code)

    asyncio.run(run_and_leave())


def _spellings(location: tuple[int | str, ...]) -> str:
    """A setting as it can be given: ``--log-level (DLLM_OPERATOR_LOG_LEVEL)``."""
    name = str(location[0]) if location else ""
    return f"--{name.replace('_', '-')} (DLLM_OPERATOR_{name.upper()})"


@cli.command()
def crd() -> None:
    """Print the CustomResourceDefinition."""
    from dllm_operator.api.crd import dump_crd

    click.echo(dump_crd(), nl=False)
