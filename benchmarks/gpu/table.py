"""The figures of a record as a table."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def figures_table(record: dict[str, Any]) -> Table:
    """All parts' figures in the order they were measured; a part that failed shows its error."""
    table = Table(title="GPU benchmark")
    for column, justify in (("part", "left"), ("figure", "left"), ("value", "right"), ("target", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_column("line")
    for part, entry in record["parts"].items():
        for figure in entry["figures"]:
            line = f"{figure['line']} {_verdict(figure)}" if "line" in figure else ""
            table.add_row(part, figure["name"], _value(figure), target_text(figure), line)
        if entry["error"]:
            table.add_row(part, f"[red]{_plain(entry['error'])}[/red]", "", "", "failed")
        table.add_section()
    return table


def target_text(figure: dict[str, Any]) -> str:
    if "target" not in figure:
        return ""
    sign = "<=" if figure["is_ceiling"] else ">="
    goal = f" ({figure['goal']:g})" if figure["goal"] is not None else ""
    return f"{sign} {figure['target']:g}{goal}"


def verdicts(record: dict[str, Any]) -> dict[int, bool]:
    """By line of the acceptance list, whether every figure that proves it is reached."""
    lines: dict[int, bool] = {}
    for entry in record["parts"].values():
        for figure in entry["figures"]:
            if "line" in figure:
                lines[figure["line"]] = lines.get(figure["line"], True) and figure["is_reached"]
    return dict(sorted(lines.items()))


def _verdict(figure: dict[str, Any]) -> str:
    return "[green]reached[/green]" if figure["is_reached"] else "[red]missed[/red]"


def _value(figure: dict[str, Any]) -> str:
    value = figure["value"]
    if value is None:
        return "-"
    shown = f"{value:.1%}" if figure["unit"] == "share" else f"{value:,.4g}"
    return shown if figure["unit"] == "share" else f"{shown} {figure['unit']}"


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
