"""A bar for the terminal while weights stream in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from dllm_server.models.loader import Progress as Report


@contextmanager
def loading_bar() -> Iterator[Report]:
    """Yield a callback of (bytes loaded, bytes in all) that draws on stderr; silent where that is no
    terminal."""
    columns = (TextColumn("Loading weights"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("load", total=None)
        yield lambda loaded, total: bar.update(task, completed=loaded, total=total)
