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
from dllm_server.evaluation.score import Score, score
from dllm_server.evaluation.tasks import Family, make_items
from dllm_server.models.registry import open_checkpoint
from dllm_server.models.source import resolve_model
from dllm_server.models.tokenizer import tokenizer_of
from dllm_server.settings import DiffusionSettings, EngineSettings, KvSelection


def run_evaluation(
    settings: EngineSettings,
    *,
    items: int,
    families: Sequence[str],
    modes: Sequence[str],
    json_file: Path | None,
) -> None:
    """Print the table; unknown family or mode names raise ``ValueError`` listing the known ones."""
    chosen_families = [
        Family(name) for name in _known(families, [family.value for family in Family], "family")
    ]
    config = open_checkpoint(resolve_model(settings.model, settings.revision)).config
    by_name: dict[str, Mode | ExactMode] = {
        mode.name: mode for mode in (EXACT_MODES if config.grid else MODES)
    }
    chosen_modes = [by_name[name] for name in _known(modes, list(by_name), "mode")]
    scores = evaluate(settings, items, chosen_families, chosen_modes)
    if json_file is not None:
        json_file.write_text(json.dumps([entry.row() for entry in scores], indent=1) + "\n")
    console = Console()
    Console(width=max(console.width, 170)).print(table(scores, chosen_families, chosen_modes))


def evaluate(
    settings: EngineSettings, items: int, families: Sequence[Family], modes: Sequence[Mode | ExactMode]
) -> list[Score]:
    """Every family under every mode of the model's kind, on the held-out seed."""
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
    questions = {family: make_items(family, items) for family in families}
    scores = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluate", total=len(modes) * len(families))
        for mode in modes:
            engine, diffusion = engines[mode.selection], _diffusion(mode, settings, started)
            for family in families:
                scores.append(score(engine, tokenizer, family, questions[family], mode.name, diffusion))
                bar.advance(task)
    return scores


def _diffusion(mode: Mode | ExactMode, settings: EngineSettings, started: StartedEngine) -> DiffusionSettings:
    if isinstance(mode, Mode):
        return mode.diffusion(settings.block_length)
    blocks = started.model.blocks
    return mode.diffusion(diffusion_defaults(settings, blocks), blocks)


def table(scores: Sequence[Score], families: Sequence[Family], modes: Sequence[Mode | ExactMode]) -> Table:
    """A row a family, a column a mode: accuracy, tokens a forward pass. Below: the averages and the speed."""
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


def _known(chosen: Sequence[str], known: Sequence[str], what: str) -> Sequence[str]:
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"unknown {what} {', '.join(unknown)}: choose from {', '.join(known)}")
    return chosen or known
