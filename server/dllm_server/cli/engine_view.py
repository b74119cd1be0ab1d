"""Snapshots of engines as text: one in full, several as a table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dllm_server.api.schemas.snapshot import Snapshot
from dllm_server.load.duration import in_words
from dllm_server.memory import GIB, MIB

BAR = 60
SHOWN_STEPS = 8
LEVELS = "▁▂▃▄▅▆▇█"
COLORS = ("blue", "cyan", "magenta", "yellow", "green", "bright_red", "bright_blue")
FREE = "free"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server told last and the time before, or why it told nothing."""

    address: str
    now: Snapshot | None = None
    before: Snapshot | None = None
    problem: str = ""

    def told(self, snapshot: Snapshot) -> Seen:
        return Seen(self.address, snapshot, self.now)

    def silent(self, problem: str) -> Seen:
        return Seen(self.address, problem=problem)

    @property
    def tokens_per_second(self) -> float | None:
        """Committed between the two; None without two of one process."""
        if self.now is None or self.before is None:
            return None
        seconds = self.now.server.now_seconds - self.before.server.now_seconds
        tokens = self.now.steps.committed_tokens_total - self.before.steps.committed_tokens_total
        return tokens / seconds if seconds > 0 and tokens >= 0 else None


def screen(seen: Sequence[Seen]) -> RenderableType:
    """One server in full; of several a line each and their sums."""
    if len(seen) == 1:
        return _whole(seen[0])
    return _fleet(seen)


def _whole(seen: Seen) -> RenderableType:
    now = seen.now
    if now is None:
        return Text.assemble((seen.address, "bold"), "  ", (seen.problem, "red"))
    left = Group(_memory(now), _requests(now), _pages(now), _latency(now))
    return Group(_head(seen, now), Columns([left, Group(_steps(seen, now), _tuning(now))], padding=(0, 4)))


def _head(seen: Seen, now: Snapshot) -> Text:
    server = now.server
    up = in_words(server.now_seconds - server.started_seconds)
    head = Text.assemble(
        (server.model, "bold"), f" on {server.device} in {server.dtype}, up {up}  ", (seen.address, "dim")
    )
    if not now.is_sound:
        head.append("  computes no numbers", style="bold red")
    return head


def _memory(now: Snapshot) -> RenderableType:
    memory = now.memory
    shares = {owner: size / memory.device_bytes for owner, size in memory.by_owner.items()}
    title = f"{size(memory.budget_bytes)} of {size(memory.device_bytes)} may be used"
    table = _table("owner", "now", "peak", "predicted")
    for place, owner in enumerate(memory.by_owner):
        columns = (memory.by_owner, memory.peak_by_owner, memory.predicted_by_owner)
        color = _color(place, owner)
        table.add_row(
            Text.assemble(("■ ", color), owner),
            *(size(column[owner]) if owner in column else "-" for column in columns),
        )
    mark = min(round(BAR * memory.budget_bytes / memory.device_bytes), BAR)
    return Group(_title("Memory", title), bar(shares, mark=mark), table)


def _requests(now: Snapshot) -> RenderableType:
    requests = now.requests
    words = ", ".join(f"{count:,} {phase}" for phase, count in requests.by_phase.items())
    shares = {
        phase: count / max(requests.most_running, 1)
        for phase, count in requests.by_phase.items()
        if phase != "waiting"
    }
    title = f"{requests.running:,} of {requests.most_running:,} running, {requests.waiting:,} waiting"
    return Group(_title("Requests", title), bar(shares), Text(words or "none", style="dim"))


def _pages(now: Snapshot) -> RenderableType:
    pages = now.pages
    whole = max(pages.used + pages.free, 1)
    title = f"{pages.used:,} of {whole:,} used, {pages.prefix:,} hold prefixes, {pages.page_size} slots each"
    parts: list[RenderableType] = [
        _title("Pages", title),
        bar({"used": pages.used / whole, "prefix": pages.prefix / whole}),
    ]
    if (cache := now.prefix_cache) is not None:
        hits = f"{cache.hit / cache.queried:.1%}" if cache.queried else "-"
        parts.append(
            Text(f"prefix cache: {hits} of {cache.queried:,} tokens found, {cache.evicted:,} evicted")
        )
    return Group(*parts)


def _steps(seen: Seen, now: Snapshot) -> RenderableType:
    steps = now.steps
    rate = seen.tokens_per_second
    title = f"{sum(steps.total.values()):,}, {steps.token_budget:,} tokens a step at most"
    title += "" if rate is None else f", {rate:,.0f} tokens a second"
    if steps.out_of_memory_total or steps.preemptions_total:
        title += f"; {steps.out_of_memory_total} out of memory, {steps.preemptions_total} preemptions"
    fills = [sum(step.tokens.values()) / step.token_budget for step in steps.recent]
    if not fills:
        return Group(_title("Steps", title), Text("none yet", style="dim"))
    phases = list(steps.recent[-1].tokens)
    table = _table("step", *(f"{phase} tokens" for phase in phases), "requests", "committed", "took")
    for step in steps.recent[-SHOWN_STEPS:]:
        table.add_row(
            f"{step.number:,}",
            *(f"{step.tokens.get(phase, 0):,}" for phase in phases),
            f"{sum(step.requests.values()):,}",
            f"{step.committed_tokens:,}",
            in_words(step.seconds),
        )
    return Group(_title("Steps", title), Text(f"{sparkline(fills)} of the token budget", style="cyan"), table)


def _latency(now: Snapshot) -> RenderableType:
    latency = now.latency
    table = _table("", "p50", "p95", "p99")
    for name, times in (
        ("queue", latency.queue_seconds),
        ("first block", latency.first_block_seconds),
        ("end to end", latency.end_to_end_seconds),
    ):
        table.add_row(name, *(_time(value) for value in (times.p50, times.p95, times.p99)))
    return Group(_title("Latency", f"of the last {latency.answers:,} answers"), table)


def _tuning(now: Snapshot) -> RenderableType:
    tuning = now.tuning
    title = f"generation {tuning.generation}" + (", newest file refused" if tuning.is_refused else "")
    table = _table("setting", "value", "floor", "ceiling")
    for name, setting in tuning.settings.items():
        bounds = ("-" if bound is None else f"{bound:,}" for bound in (setting.floor, setting.ceiling))
        table.add_row(name, f"{setting.value:,g}", *bounds)
    lines = [
        Text(f"{change.generation}: {_changed(change.settings)}", style="dim")
        for change in tuning.changes[-3:]
    ]
    return Group(_title("Tuning", title), table, *lines)


def _changed(settings: Mapping[str, tuple[float, float]]) -> str:
    return ", ".join(f"{name} {before:,g} to {after:,g}" for name, (before, after) in settings.items())


def _fleet(seen: Sequence[Seen]) -> RenderableType:
    table = Table(title=f"{len(seen)} servers", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    names = (
        "server",
        "running",
        "waiting",
        "memory",
        "pages",
        "tokens/s",
        "first block p95",
        "end to end p95",
        "tuning",
    )
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place else "left", no_wrap=not place)
    told = [one for one in seen if one.now is not None]
    for one in told:
        table.add_row(*_row(one))
    rates = [rate for one in told if (rate := one.tokens_per_second) is not None]
    sums = [one.now.requests for one in told if one.now is not None]
    table.add_section()
    table.add_row(
        "all",
        f"{sum(r.running for r in sums):,}/{sum(r.most_running for r in sums):,}",
        f"{sum(r.waiting for r in sums):,}",
        "",
        "",
        f"{sum(rates):,.0f}" if rates else "-",
    )
    problems = [
        Text.assemble(one.address.removeprefix("http://"), "  ", (one.problem, "red"))
        for one in seen
        if one.now is None
    ]
    return Group(table, *problems)


def _row(one: Seen) -> list[str]:
    now = one.now
    if now is None:
        return []
    memory, pages, latency = now.memory, now.pages, now.latency
    used = 1 - memory.by_owner.get(FREE, 0) / memory.device_bytes
    rate = one.tokens_per_second
    sound = "" if now.is_sound else " (computes no numbers)"
    return [
        one.address.removeprefix("http://") + sound,
        f"{now.requests.running:,}/{now.requests.most_running:,}",
        f"{now.requests.waiting:,}",
        f"{used:.0%}",
        f"{pages.used / max(pages.used + pages.free, 1):.0%}",
        "-" if rate is None else f"{rate:,.0f}",
        _time(latency.first_block_seconds.p95),
        _time(latency.end_to_end_seconds.p95),
        str(now.tuning.generation) + (" refused" if now.tuning.is_refused else ""),
    ]


def bar(shares: Mapping[str, float], *, mark: int | None = None) -> Text:
    """Blocks of ``BAR`` cells in the order and colours of their owners, what is free as dots; ``mark`` is a
    line before that cell."""
    cells: list[tuple[str, str]] = []
    whole = 0.0
    for place, (name, share) in enumerate(shares.items()):
        whole += share
        width = min(round(BAR * whole), BAR) - len(cells)
        cells += [("·", "dim") if name == FREE else ("█", _color(place, name))] * max(width, 0)
    cells += [("·", "dim")] * (BAR - len(cells))
    if mark is not None:
        cells.insert(mark, ("│", "bold red"))
    return Text.assemble(*cells)


def sparkline(shares: Sequence[float]) -> str:
    """One character each, from 0 to 1."""
    return "".join(LEVELS[min(max(int(share * len(LEVELS)), 0), len(LEVELS) - 1)] for share in shares)


def size(count: float) -> str:
    return f"{count / GIB:,.2f} GiB" if count >= GIB else f"{count / MIB:,.1f} MiB"


def _color(place: int, name: str) -> str:
    return "dim" if name == FREE else COLORS[place % len(COLORS)]


def _title(name: str, words: str) -> Text:
    return Text.assemble("\n", (name, "bold"), f"  {words}")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left")
    return table


def _time(value: float | None) -> str:
    return "-" if value is None else in_words(value)
