"""``dllm generate``: one prompt, with the canvas shown while it is denoised."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from dllm_server.engine.process.offline import RequestFailedError, complete
from dllm_server.engine.process.startup import start
from dllm_server.engine.requests.decoding import diffusion_defaults
from dllm_server.engine.requests.messages import CanvasUpdate, Diffusion, Generate, ModelInfo, Sampling
from dllm_server.models.progress import loading_bar
from dllm_server.models.registry import open_checkpoint
from dllm_server.models.source import resolve_model
from dllm_server.models.tokenizer import Tokenizer, tokenizer_of
from dllm_server.settings import EngineSettings
from dllm_server.structure.checker import GrammarChecker
from dllm_server.structure.grammar import Grammar, GrammarKind

MASK_SIGN = "░"


def run_generate(
    settings: EngineSettings,
    prompt: str,
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
    is_raw: bool,
    grammar: Grammar | None = None,
) -> None:
    """Print the answer on stdout; the canvas and the counts go to stderr, the canvas only on a terminal."""
    checkpoint = open_checkpoint(resolve_model(settings.model, settings.revision))
    tokenizer = tokenizer_of(checkpoint.directory, checkpoint.config)
    chat = [{"role": "user", "content": prompt}]
    with loading_bar() as progress:
        started = start(settings, progress=progress)
    if grammar is not None:
        asyncio.run(_check(grammar, started.model))
    request = Generate(
        request_id="generate",
        prompt=tokenizer.encode(prompt) if is_raw else tokenizer.encode_chat(chat),
        max_tokens=max_tokens,
        sampling=Sampling(temperature=temperature, seed=seed),
        diffusion=Diffusion.of(diffusion_defaults(settings, started.model.blocks)),
        stop_token_ids=list(checkpoint.config.eos_token_ids),
        wants_canvas=True,
        grammar=grammar,
    )
    console = Console(stderr=True)
    canvas = CanvasView(tokenizer)
    began = time.monotonic()
    with Live(canvas.text(), console=console, transient=True, auto_refresh=False) as live:

        def show(update: CanvasUpdate) -> None:
            canvas.apply(update)
            if console.is_terminal:
                live.update(canvas.text(), refresh=True)

        try:
            (completion,) = complete(started.engine, [request], on_canvas=show)
        except RequestFailedError as error:
            raise ValueError(str(error)) from error
    seconds = time.monotonic() - began
    click.echo(tokenizer.decode(completion.token_ids))
    tokens, passes = len(completion.token_ids), completion.stats.forward_passes
    console.print(
        f"{tokens} tokens in {passes} forward passes ({tokens / passes:.1f} a pass), {seconds:.2f} s",
        style="dim",
    )


def asked_grammar(
    json_schema: Path | None, regex: str | None, choices: Sequence[str], grammar: Path | None
) -> Grammar | None:
    """What the options hold the answer to; ``ValueError`` where that is more than one thing."""
    asked = {
        "--json-schema": json_schema and Grammar(GrammarKind.JSON_SCHEMA, json_schema.read_text()),
        "--regex": regex and Grammar(GrammarKind.REGEX, regex),
        "--choice": choices and Grammar(GrammarKind.CHOICE, json.dumps(choices)),
        "--grammar": grammar and Grammar(GrammarKind.EBNF, grammar.read_text()),
    }
    given = {name: one for name, one in asked.items() if isinstance(one, Grammar)}
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} cannot go together: give one of them")
    return next(iter(given.values()), None)


async def _check(grammar: Grammar, model: ModelInfo) -> None:
    """``ValueError`` where the grammar cannot be followed, as the server finds out."""
    checker = GrammarChecker(model.vocabulary_files)
    try:
        await checker.check(grammar)
    finally:
        await checker.close()


class CanvasView:
    """The generated tokens so far; masked positions are shown as a shade."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []

    def apply(self, update: CanvasUpdate) -> None:
        self._tokens[update.block_start :] = update.token_ids

    def text(self) -> Text:
        text = Text()
        run: list[int] = []
        for token in self._tokens:
            if token >= 0:
                run.append(token)
                continue
            text.append(self._tokenizer.decode(run))
            text.append(MASK_SIGN, style="dim")
            run = []
        return text.append(self._tokenizer.decode(run))
