"""What a query asks for: its series, and the labels that it matches or keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import promql_parser

from observability.boards import BOARDS
from observability.boards.series import INSTANCE_LABEL, POOL_LABEL

TARGET_LABELS = {"namespace", "pod", INSTANCE_LABEL, POOL_LABEL}
VARIABLES = sorted({variable.name for board in BOARDS for variable in board.variables})
OF_PROCESSES = {"process_resident_memory_bytes", "process_cpu_seconds_total"}


@dataclass(frozen=True, slots=True)
class Asked:
    series: set[str]
    labels: set[str]


def filled_in(query: str, interval: str = "1m") -> str:
    """As Grafana sends it where all of every variable is chosen."""
    query = query.replace("$__rate_interval", interval)
    return re.sub(rf"\$({'|'.join(VARIABLES)})\b", ".*", query)


def asked(query: str) -> Asked:
    series: set[str] = set()
    labels: set[str] = set()

    def visit(part: promql_parser.Expr) -> None:
        match part:
            case promql_parser.VectorSelector():
                note(part)
            case promql_parser.MatrixSelector():
                note(part.vector_selector)
            case promql_parser.AggregateExpr() if part.modifier is not None:
                labels.update(part.modifier.labels)

    def note(selector: promql_parser.VectorSelector) -> None:
        assert selector.name, query
        series.add(selector.name)
        labels.update(matcher.name for matcher in selector.matchers.matchers)

    promql_parser.walk(promql_parser.parse(query), visit)
    return Asked(series, labels)


def problems(query: str, known: Mapping[str, set[str]]) -> list[str]:
    """Series that nobody exposes, and labels that none of the query's series has; ``known`` has the labels of
    each series."""
    wanted = asked(query)
    unknown = sorted(wanted.series - set(known) - OF_PROCESSES)
    had = {"le"} | TARGET_LABELS | {label for name in wanted.series for label in known.get(name, ())}
    return [f"no series {name}" for name in unknown] + [
        f"no label {name}" for name in sorted(wanted.labels - had)
    ]
