"""The metrics' page, the chart's dashboards and its alerts, each generated from one description."""
