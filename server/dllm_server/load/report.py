"""A record as one HTML page that needs nothing else: no script, no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from dllm_server.load.chart import Series, chart
from dllm_server.load.comparison import SPREADS
from dllm_server.load.duration import in_words

BINS = 60

STYLE = """
:root{color-scheme:light dark;--ink:#1c2128;--dim:#5d6672;--line:#d8dde3;--page:#fff;
--c0:#2563ab;--c1:#b4540a;--bad:#b42318}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--dim:#9aa4b2;--line:#343b45;--page:#14171c;
--c0:#6cb0f5;--c1:#f0964a;--bad:#ff8a7a}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1040px;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
p,figcaption{color:var(--dim);margin:.25rem 0}
strong{color:var(--ink)}.bad{color:var(--bad)}
.scroll{overflow-x:auto;margin:.75rem 0}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .9rem .25rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{font-weight:600;color:var(--dim)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:1.5rem}
figure{margin:0}svg{width:100%;height:auto}
svg text{font-size:11px;fill:var(--dim)}.grid{stroke:var(--line)}
.line{fill:none;stroke-width:2}.dots{fill:none;stroke-width:4;stroke-linecap:round;stroke-opacity:.55}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}
line.mark{stroke:var(--bad);stroke-dasharray:4 3}
.key{margin-left:.75rem;color:var(--ink);display:inline-block}.key:empty{display:none}
.key::before{content:"";display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.3em}
.key.c0::before{background:var(--c0)}.key.c1::before{background:var(--c1)}
code{font-size:.9em}
"""


def report(record: dict[str, Any]) -> str:
    """The page of ``record``."""
    parts = [
        _head(record),
        *(_endpoint(endpoint) for endpoint in record["endpoints"]),
        _sweep(record["sweep"]),
        _ratios(record),
        _plots(record),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>dllm bench: {escape(_names(record))}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(part for part in parts if part)}</main></body></html>\n"
    )


def _names(record: dict[str, Any]) -> str:
    return " and ".join(endpoint["url"] for endpoint in record["endpoints"]) or "nothing measured"


def _head(record: dict[str, Any]) -> str:
    asked = " ".join(
        f"{name.replace('_', '-')}={value}" for name, value in sorted(record["settings"].items())
    )
    cut = "" if record["is_whole"] else '<p class="bad">Stopped before its end.</p>'
    note = f"<p>Lengths: {escape(record['note'])}.</p>" if record["note"] else ""
    return (
        f"<h1>{escape(_names(record))}</h1><p>{escape(record['ended'])}, dllm {escape(record['dllm'])}: "
        f"<code>{escape(asked) or 'defaults'}</code></p>{cut}{note}"
    )


def _endpoint(endpoint: dict[str, Any]) -> str:
    found = endpoint["summary"]
    good = f"{_share(found['good_share'])} good, {_figure(found['good_per_second'])} a second"
    lines = (
        f"<p><strong>{found['answered']:,} of {found['requests']:,} requests answered</strong> in "
        f"{_seconds(found['seconds'])}: {_figure(found['answered_per_second'])} a second, "
        f"{_figure(found['tokens_per_second'])} generated tokens a second; {good}.</p>"
    )
    spreads = [
        [name, *(_seconds(found[field][column]) for column in ("mean", "p50", "p95", "p99", "largest"))]
        for field, name in (*SPREADS.items(), ("lag", "sent late by"))
        if found[field]["count"]
    ]
    errors = [[escape(kind), f"{count:,}"] for kind, count in found["errors"].items()]
    server = [
        [
            pair["name"],
            _seconds(pair["clients"]) if pair["is_seconds"] else _figure(pair["clients"]),
            _seconds(pair["server"]) if pair["is_seconds"] else _figure(pair["server"]),
            _share(pair["difference"]),
        ]
        for pair in endpoint["server"]
    ]
    return (
        f"<h2>{escape(endpoint['url'])} <code>{escape(endpoint['model'])}</code></h2>{lines}"
        + _table(("from the intended arrival", "mean", "p50", "p95", "p99", "largest"), spreads)
        + _table(("errors", "requests"), errors)
        + _table(("beside the server's own counters", "clients", "server", "difference"), server)
    )


def _sweep(sweep: dict[str, Any] | None) -> str:
    if sweep is None:
        return ""
    held, broken = sweep["held"], sweep["broken"]
    answer = "no rate that was tried held" if not held else f"holds at {_figure(held)} requests a second"
    answer += f", breaks at {_figure(broken)}" if broken is not None else ", and no rate in reach broke it"
    rows = [
        [
            _figure(one["rate"]),
            _share(one["summary"]["good_share"]),
            _seconds(one["summary"]["first"]["p99"]),
            _seconds(one["summary"]["end"]["p99"]),
            "held" if one["has_held"] else "broke",
        ]
        for one in sorted(sweep["tries"], key=lambda one: float(one["rate"]))
    ]
    table = _table(("requests a second", "good", "first block p99", "end to end p99", ""), rows)
    which = "<p>The figures of the endpoint are those of the highest rate that held.</p>" if held else ""
    return f"<h2>The objective</h2><p><strong>{answer}</strong></p>{which}{table}"


def _ratios(record: dict[str, Any]) -> str:
    rows = [
        [
            ratio["name"],
            _value(ratio, "first"),
            _value(ratio, "second"),
            _figure(ratio["ratio"]),
            _range(ratio),
        ]
        for ratio in record["ratios"]
        if ratio["ratio"] is not None
    ]
    if not rows:
        return ""
    return "<h2>Second / first</h2>" + _table(("", "first", "second", "ratio", "of single rounds"), rows)


def _value(ratio: dict[str, Any], side: str) -> str:
    return _figure(ratio[side]) if ratio["name"].endswith("a second") else _seconds(ratio[side])


def _range(ratio: dict[str, Any]) -> str:
    return f"{_figure(ratio['least'])} to {_figure(ratio['largest'])}"


def _plots(record: dict[str, Any]) -> str:
    limits = dict(part.split("=") for part in record["settings"].get("objective", "").split(",") if part)
    marks = {name: [(float(limit.removesuffix("s")), "objective")] for name, limit in limits.items()}
    plots = [_tries(record["sweep"])]
    for field, title in (("first", "First block"), ("end", "End to end")):
        series = [
            Series(_name(record, color), _cumulated(_waits(endpoint, field)), color, "steps")
            for color, endpoint in enumerate(record["endpoints"])
        ]
        lines = marks.get(field, ())
        plots.append(chart(f"{title}, all requests", series, x="seconds", y="% of requests", marks=lines))
    over_time = [
        Series(
            _name(record, color),
            [
                (row["intended"], row["ended"] - row["intended"])
                for row in endpoint["rounds"][0]
                if not row["error"]
            ],
            color,
            "dots",
        )
        for color, endpoint in enumerate(record["endpoints"])
        if endpoint["rounds"]
    ]
    first_round = ", first round" if any(len(e["rounds"]) > 1 for e in record["endpoints"]) else ""
    plots.append(
        chart(f"End to end by arrival{first_round}", over_time, x="intended arrival (s)", y="seconds")
    )
    for title, y, points in (
        ("Requests open", "requests", _open_requests),
        ("Text arriving", "blocks a second", _blocks_a_second),
    ):
        series = [
            Series(_name(record, color), points(endpoint["rounds"][0]), color, "steps")
            for color, endpoint in enumerate(record["endpoints"])
            if endpoint["rounds"]
        ]
        plots.append(chart(f"{title}{first_round}", series, x="seconds", y=y))
    return f'<h2>Plots</h2><div class="plots">{"".join(plots)}</div>' if any(plots) else ""


def _name(record: dict[str, Any], place: int) -> str:
    return str(record["endpoints"][place]["url"]) if len(record["endpoints"]) > 1 else ""


def _waits(endpoint: dict[str, Any], field: str) -> list[float]:
    """Seconds to the first block, or to the end, of all that were answered."""
    answered = [row for rows in endpoint["rounds"] for row in rows if not row["error"]]
    if field == "first":
        return [row["blocks"][0] - row["intended"] for row in answered if row["blocks"]]
    return [row["ended"] - row["intended"] for row in answered]


def _cumulated(values: Sequence[float]) -> list[tuple[float, float]]:
    """(value, percent of all that do not exceed it)."""
    return [(value, 100 * place / len(values)) for place, value in enumerate(sorted(values), start=1)]


def _open_requests(rows: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    changes = sorted([(row["intended"], 1) for row in rows] + [(row["ended"], -1) for row in rows])
    count, points = 0, []
    for moment, change in changes:
        count += change
        points.append((moment, float(count)))
    return points


def _blocks_a_second(rows: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    moments = [moment for row in rows for moment in row["blocks"]]
    longest = max(moments, default=0.0)
    if not longest:
        return []
    counts = [0] * BINS
    for moment in moments:
        counts[min(int(moment / longest * BINS), BINS - 1)] += 1
    return [(longest * place / BINS, count * BINS / longest) for place, count in enumerate(counts)]


def _tries(sweep: dict[str, Any] | None) -> str:
    if sweep is None:
        return ""
    points = sorted((one["rate"], 100 * (one["summary"]["good_share"] or 0.0)) for one in sweep["tries"])
    return chart("Good requests by rate", [Series("", points)], x="requests a second", y="% good")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _seconds(value: float | None) -> str:
    return in_words(math.nan if value is None else value)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g}%"
