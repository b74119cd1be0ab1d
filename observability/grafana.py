"""Boards as Grafana's JSON."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from observability.panel import Board, Panel, Query, Shape, Variable

SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")
TAG = "dllm-serve"
HIDDEN_COLUMNS = ("Time", "Value", "__name__", "job", "instance", "endpoint", "container", "pod")
HEIGHTS = {Shape.NUMBER: 4}
HEIGHT = 8


def to_json(board: Board) -> str:
    """The dashboard as Grafana imports it; the same text for the same board."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(f"dllm-{board.name}")
        .description(board.text)
        .tags([TAG])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("dLLM-Serve")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(False)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in board.variables:
        built = built.with_variable(_variable(variable))
    for row in board.rows:
        built = built.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            built = built.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=1).encode(built.build()) + "\n"


def _variable(variable: Variable) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(variable.name)
        .label(variable.title)
        .datasource(SOURCE)
        .query(f"label_values({variable.selector}, {variable.label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel) -> Any:
    match panel.shape:
        case Shape.TABLE:
            built: Any = table.Panel().with_transformation(
                DataTransformerConfig(
                    id_val="organize", options={"excludeByName": dict.fromkeys(HIDDEN_COLUMNS, True)}
                )
            )
        case Shape.NUMBER:
            built = stat.Panel().unit(panel.unit).reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        case Shape.LINES | Shape.AREAS:
            built = timeseries.Panel().unit(panel.unit).min(0).fill_opacity(10)
            built = built.legend(
                VizLegendOptions()
                .display_mode(common.LegendDisplayMode.LIST)
                .placement(common.LegendPlacement.BOTTOM)
                .show_legend(True)
            ).tooltip(
                VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
            )
    if panel.shape is Shape.AREAS:
        built = built.fill_opacity(40).stacking(StackingConfig().mode(common.StackingMode.NORMAL))
    built = built.title(panel.title).datasource(SOURCE)
    built = built.span(panel.width).height(HEIGHTS.get(panel.shape, HEIGHT))
    if panel.text:
        built = built.description(panel.text)
    for number, query in enumerate(panel.queries):
        built = built.with_target(_target(query, chr(ord("A") + number), panel.shape))
    return built


def _target(query: Query, reference: str, shape: Shape) -> prometheus.Dataquery:
    built = prometheus.Dataquery().expr(query.expression).ref_id(reference)
    if shape is Shape.TABLE:
        return built.instant().format(PromQueryFormat.TABLE)
    return built.legend_format(query.legend) if query.legend else built
