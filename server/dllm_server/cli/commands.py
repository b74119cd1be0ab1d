"""``dllm serve | generate | plan | evaluate | bench | top``. Bad flags and files end in one clear line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from dllm_server.cause import Cause, Explanation
from dllm_server.cli.options import describe, given, settings_options
from dllm_server.extras import MissingPackageError, is_foreign, missing
from dllm_server.load.settings import BenchSettings
from dllm_server.memory import BudgetError
from dllm_server.models.files import ModelError
from dllm_server.settings import EngineSettings, LogSettings, ServeSettings
from dllm_server.stop_signals import leave
from dllm_server.termination import USAGE_EXIT_CODE, Termination, TerminationReason, termination_log

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def one_line_errors(*extras: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What a user can cause ends in ``Error: ...`` and exit code 2, never a traceback; so does a package that
    the command's ``extras`` bring and that is missing."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return command(*args, **kwargs)
            except ValidationError as error:
                raise click.UsageError(describe(error)) from error
            except (BudgetError, ModelError, MissingPackageError, OSError, ValueError) as error:
                raise click.UsageError(str(error)) from error
            except ImportError as error:
                if not is_foreign(error):
                    raise
                raise click.UsageError(str(missing(f"dllm {command.__name__}", extras, error))) from error

        return guarded

    return decorate


_FILE = click.Path(path_type=Path)

model_argument = click.argument("model", required=False)
config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML file of settings (flag names).",
)


def load_settings(model: str | None, config_file: Path | None, flags: dict[str, Any]) -> ServeSettings:
    flags = given(flags | {"model": model})
    return ServeSettings.load(flags, config_file)


def _settings_cause(error: ValueError) -> Explanation:
    """Names the first setting that is wrong by itself."""
    names = (
        [problem["loc"][0] for problem in error.errors() if problem["loc"]]
        if isinstance(error, ValidationError)
        else []
    )
    known = [str(name) for name in names if name in ServeSettings.model_fields]
    return Explanation(Cause.SETTING, setting=known[0]) if known else Explanation(Cause.SETTINGS)


def show_warnings_only() -> None:
    """On stderr: what a command prints on stdout is its answer."""
    from dllm_server.logs import configure_logging

    configure_logging(LogSettings(log_level="warning"))


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="dllm-serve", prog_name="dllm")
def cli() -> None:
    """Serve diffusion language models.

    Try `dllm generate --prompt "Who are you?"`, then `dllm serve`. Every flag can also be an environment
    variable (DLLM_MAX_NUM_SEQS for --max-num-seqs) or a line of the --config file; flags win over the
    environment, it over the file.
    """


@cli.command()
@model_argument
@config_option
@settings_options(ServeSettings, leave_out=["model"])
@one_line_errors("server")
def serve(model: str | None, config_file: Path | None, **flags: Any) -> None:
    """Serve MODEL (a directory or hub id; the embedded model by default) over an OpenAI-compatible HTTP
    API."""
    try:
        settings = load_settings(model, config_file, flags)
    except ValueError as error:
        end = Termination(TerminationReason.START_FAILED, _settings_cause(error), USAGE_EXIT_CODE)
        end.write(termination_log())
        raise
    from dllm_server.api.server import run_server

    leave(run_server(settings))


@cli.command()
@model_argument
@config_option
@click.option("--prompt", required=True, help="What to ask.")
@click.option("--max-tokens", default=64, show_default=True, type=click.IntRange(1), help="Longest answer.")
@click.option("--temperature", default=0.0, show_default=True, type=click.FloatRange(0), help="0 is greedy.")
@click.option("--seed", default=0, show_default=True, type=int, help="Seed of the samples.")
@click.option("--raw", is_flag=True, help="Send the prompt as it is, without the chat template.")
@click.option(
    "--json-schema",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Hold the answer to the JSON schema in this file.",
)
@click.option("--regex", help="Hold the answer to this regular expression.")
@click.option("--choice", "choices", multiple=True, help="Hold the answer to this text, or another --choice.")
@click.option(
    "--grammar",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Hold the answer to the grammar (GBNF or Lark) in this file.",
)
@settings_options(EngineSettings, leave_out=["model"])
@one_line_errors("server")
def generate(
    model: str | None,
    config_file: Path | None,
    prompt: str,
    max_tokens: int,
    temperature: float,
    seed: int,
    raw: bool,
    json_schema: Path | None,
    regex: str | None,
    choices: tuple[str, ...],
    grammar: Path | None,
    **flags: Any,
) -> None:
    """Answer one prompt; a terminal shows the canvas being denoised."""
    settings = load_settings(model, config_file, flags).engine()
    show_warnings_only()
    from dllm_server.cli.generate import asked_grammar, run_generate

    run_generate(
        settings,
        prompt,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        is_raw=raw,
        grammar=asked_grammar(json_schema, regex, choices, grammar),
    )


@cli.command()
@model_argument
@config_option
@click.option("--gpu-memory", metavar="SIZE", help="Plan for a device of this size, e.g. 24GiB.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_options(EngineSettings, leave_out=["model", "gpu_memory_limit"])
@one_line_errors("server")
def plan(
    model: str | None, config_file: Path | None, gpu_memory: str | None, as_json: bool, **flags: Any
) -> None:
    """Show how MODEL would divide a device's memory; exits with 2 and the owner that does not fit when it
    cannot."""
    settings = load_settings(model, config_file, flags | {"gpu_memory_limit": gpu_memory}).engine()
    show_warnings_only()
    from dllm_server.cli.plan import run_plan

    run_plan(settings, as_json=as_json)


@cli.command()
@model_argument
@config_option
@click.option(
    "--items", default=50, show_default=True, type=click.IntRange(1), help="Questions a task family."
)
@click.option("--family", "families", multiple=True, help="Only this family (repeatable).")
@click.option("--mode", "modes", multiple=True, help="Only this decoding mode (repeatable).")
@click.option(
    "--wording",
    "wordings",
    multiple=True,
    help="Only questions in this wording (repeatable): original, trained or held-out.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the table as JSON.",
)
@settings_options(EngineSettings, leave_out=["model"])
@one_line_errors("server", "evaluate")
def evaluate(
    model: str | None,
    config_file: Path | None,
    items: int,
    families: tuple[str, ...],
    modes: tuple[str, ...],
    wordings: tuple[str, ...],
    json_file: Path | None,
    **flags: Any,
) -> None:
    """Score MODEL on held-out tasks under each decoding mode, and under the first one in other wordings and
    with grammars."""
    settings = load_settings(model, config_file, flags).engine()
    show_warnings_only()
    from dllm_server.evaluation.report import run_evaluation

    run_evaluation(
        settings, items=items, families=families, modes=modes, wordings=wordings, json_file=json_file
    )


@cli.command()
@click.argument("url", default="http://localhost:8000")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all as JSON."
)
@click.option("--html", "html_file", type=click.Path(path_type=Path), metavar="FILE", help="Write a report.")
@settings_options(BenchSettings)
@one_line_errors("bench")
def bench(url: str, json_file: Path | None, html_file: Path | None, **flags: Any) -> None:
    """Send a load to the OpenAI-compatible endpoint at URL and say how it answers.

    Latencies count from the moment at which a request was due. Ctrl-C ends early with what there is. Flags
    can be DLLM_BENCH_... variables.
    """
    settings = BenchSettings(**given(flags))
    from dllm_server.cli.bench import run_bench

    sys.exit(run_bench(settings, url, json_file=json_file, html_file=html_file))


@cli.command()
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option(
    "--deployment", metavar="NAME", help="All serving pods of this DLLMDeployment, through kubectl."
)
@click.option("--namespace", metavar="NAME", help="Its namespace; kubectl's own if unset.")
@click.option("--api-key", envvar="DLLM_TOP_API_KEY", help="Bearer key; DLLM_TOP_API_KEY hides it.")
@click.option(
    "--interval", default=1.0, show_default=True, type=click.FloatRange(0.1), help="Seconds between looks."
)
@click.option("--once", "is_once", is_flag=True, help="Print one screen and end.")
@one_line_errors("bench")
def top(
    urls: tuple[str, ...],
    deployment: str | None,
    namespace: str | None,
    api_key: str | None,
    interval: float,
    is_once: bool,
) -> None:
    """Watch the engines of the servers at URL (http://localhost:8000 if none is given): memory, requests,
    steps, latency, tuning.

    A name with several addresses, as a headless Service has, is all of them. One server is shown in full,
    several as a table.
    """
    if (urls and deployment) or (namespace and not deployment):
        raise click.UsageError("give URLs, or a --deployment and its --namespace")
    from dllm_server.cli.pods import Pods
    from dllm_server.cli.top import Urls, run_top

    source = Pods(namespace, deployment) if deployment else Urls(urls or ("http://localhost:8000",))
    sys.exit(run_top(source, api_key, interval_seconds=interval, is_once=is_once))
