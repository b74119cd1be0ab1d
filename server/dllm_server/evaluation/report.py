"""``dllm evaluate``: all families under all decoding modes, as a table and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dllm_server.engine.engine import Engine
from dllm_server.engine.process.startup import StartedEngine, assemble, engine_limits, start
from dllm_server.engine.requests.decoding import diffusion_defaults
from dllm_server.evaluation.modes import EXACT_MODES, MODES, ExactMode, Mode
from dllm_server.evaluation.score import Run, Score, calls_as_asked, score
from dllm_server.evaluation.tasks import STRUCTURED, Family, make_items
from dllm_server.evaluation.wording import Wording
from dllm_server.models.registry import open_checkpoint
from dllm_server.models.source import resolve_model
from dllm_server.models.tokenizer import tokenizer_of
from dllm_server.settings import DiffusionSettings, EngineSettings, KvSelection

LOW = 0.85  # a held-out accuracy below it is told


def run_evaluation(
    settings: EngineSettings,
    *,
    items: int,
    families: Sequence[str],
    modes: Sequence[str],
    wordings: Sequence[str],
    json_file: Path | None,
) -> None:
    """Print the tables; unknown family, mode or wording names raise ``ValueError`` listing the known ones."""
    chosen_families = [
        Family(name) for name in _known(families, [family.value for family in Family], "family")
    ]
    chosen_wordings = [Wording(name) for name in _known(wordings, [one.value for one in Wording], "wording")]
    checkpoint = open_checkpoint(resolve_model(settings.model, settings.revision))
    config = checkpoint.config
    by_name: dict[str, Mode | ExactMode] = {
        mode.name: mode for mode in (EXACT_MODES if config.grid else MODES)
    }
    chosen_modes = [by_name[name] for name in _known(modes, list(by_name), "mode")]
    if Family.TOOL_CALLS in chosen_families and not calls_as_asked(
        tokenizer_of(checkpoint.directory, config)
    ):
        why = "tool_calls: this model's chat template does not show tools and calls of them in Hermes' format"
        if families:
            raise ValueError(f"{why}: leave the family out")
        Console(stderr=True).print(f"{why}: left out")
        chosen_families.remove(Family.TOOL_CALLS)
    scores = evaluate(settings, items, chosen_families, chosen_modes, chosen_wordings)
    if json_file is not None:
        json_file.write_text(json.dumps([entry.row() for entry in scores], indent=1) + "\n")
    console = Console()
    wide = Console(width=max(console.width, 170))
    if Wording.ORIGINAL in chosen_wordings:
        wide.print(table(scores, chosen_families, chosen_modes))
    wide.print(wordings_table(scores, chosen_modes[0].name))


def runs(
    modes: Sequence[Mode | ExactMode], families: Sequence[Family], wordings: Sequence[Wording]
) -> list[Run]:
    """The original wordings under every mode, the others and grammars under the first."""
    return [
        Run(mode, family, wording, has_grammar)
        for mode in modes
        for wording in wordings
        for family in families
        for has_grammar in (False, True)
        if mode is modes[0] or (wording is Wording.ORIGINAL and not has_grammar)
        if not has_grammar or family in STRUCTURED
    ]


def evaluate(
    settings: EngineSettings,
    items: int,
    families: Sequence[Family],
    modes: Sequence[Mode | ExactMode],
    wordings: Sequence[Wording],
) -> list[Score]:
    """All runs, on the held-out seed."""
    checkpoint = open_checkpoint(resolve_model(settings.model, settings.revision))
    tokenizer = tokenizer_of(checkpoint.directory, checkpoint.config)
    started = start(settings)
    engines: dict[KvSelection, Engine] = {KvSelection.PER_HEAD: started.engine}
    if any(mode.selection is KvSelection.SHARED for mode in modes):
        model = started.engine.runner.model
        shared = settings.model_copy(update={"kv_selection": KvSelection.SHARED})
        limits = engine_limits(settings, model.config.trained_len)
        engines[KvSelection.SHARED] = assemble(
            model, shared, limits, pages=started.engine.capacity.pages, grammars=started.engine.grammars
        )
    scores = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for run in bar.track(runs(modes, families, wordings), description="evaluate"):
            engine, diffusion = engines[run.mode.selection], _diffusion(run.mode, settings, started)
            asked = make_items(run.family, items, wording=run.wording)
            scores.append(score(engine, tokenizer, run, asked, diffusion))
    return scores


def _diffusion(mode: Mode | ExactMode, settings: EngineSettings, started: StartedEngine) -> DiffusionSettings:
    if isinstance(mode, Mode):
        return mode.diffusion(settings.block_length)
    blocks = started.model.blocks
    return mode.diffusion(diffusion_defaults(settings, blocks), blocks)


def table(scores: Sequence[Score], families: Sequence[Family], modes: Sequence[Mode | ExactMode]) -> Table:
    """A row a family, a column a mode: accuracy, tokens a forward pass. Below: the averages and the speed."""
    scores = [entry for entry in scores if entry.wording == Wording.ORIGINAL and not entry.has_grammar]
    by_cell = {(entry.family, entry.mode): entry for entry in scores}
    result = Table(title="accuracy, tokens a forward pass")
    result.add_column("family")
    result.add_column("tokens", justify="right")
    for mode in modes:
        result.add_column(mode.name, justify="right")
    for family in families:
        row = [by_cell[family.value, mode.name] for mode in modes]
        cells = [f"{cell.accuracy:6.1%} {cell.tokens_per_forward:4.1f}" for cell in row]
        result.add_row(family.value, str(row[0].answer_tokens), *cells)
    result.add_section()
    averages, speeds = [], []
    for mode in modes:
        column = [entry for entry in scores if entry.mode == mode.name]
        tokens, passes = sum(entry.tokens for entry in column), sum(entry.passes for entry in column)
        accuracy = sum(entry.accuracy for entry in column) / len(column)
        averages.append(f"{accuracy:6.1%} {tokens / max(passes, 1):4.1f}")
        speeds.append(f"{tokens / sum(entry.seconds for entry in column):,.0f}")
    result.add_row("average", "", *averages)
    result.add_row("tokens a second", "", *speeds)
    return result


def wordings_table(scores: Sequence[Score], mode: str) -> Table:
    """Accuracy by wording under one mode, and the shares of answers that follow their schema or tools,
    and of those that were cut short."""
    scores = [entry for entry in scores if entry.mode == mode]
    wordings = list(dict.fromkeys(entry.wording for entry in scores))
    result = Table(title=f"accuracy by wording, {mode}")
    result.add_column("family")
    for wording in wordings:
        result.add_column(wording, justify="right")
    result.add_column("valid", justify="right")
    result.add_column("cut", justify="right")
    result.add_column("")
    for family, has_grammar in dict.fromkeys((entry.family, entry.has_grammar) for entry in scores):
        row = {
            entry.wording: entry
            for entry in scores
            if entry.family == family and entry.has_grammar == has_grammar
        }
        counted = [(entry.valid, entry.items) for entry in row.values() if entry.valid is not None]
        valid = sum(count for count, _ in counted) / max(sum(items for _, items in counted), 1)
        held_out = row.get(Wording.HELD_OUT)
        is_low = held_out is not None and held_out.accuracy < LOW
        result.add_row(
            f"{family}, with its grammar" if has_grammar else family,
            *(f"{row[wording].accuracy:6.1%}" for wording in wordings),
            f"{valid:6.1%}" if counted else "",
            f"{sum(entry.cut for entry in row.values()) / sum(entry.items for entry in row.values()):6.1%}",
            f"below {LOW:.0%} in wordings it was not trained on" if is_low else "",
        )
    free = [entry for entry in scores if not entry.has_grammar]
    result.add_section()
    by_wording = ([entry.accuracy for entry in free if entry.wording == wording] for wording in wordings)
    result.add_row("average", *(f"{sum(column) / len(column):6.1%}" for column in by_wording), "", "", "")
    return result


def _known(chosen: Sequence[str], known: Sequence[str], what: str) -> Sequence[str]:
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"unknown {what} {', '.join(unknown)}: choose from {', '.join(known)}")
    return chosen or known
