"""Hooks of pytest: one line a reason for what was skipped, and a failure where a cluster was offered and its
tests were skipped all the same. Also under xdist, in the process that reports."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping

import pytest

NO_CLUSTER = "no cluster: set KUBECONFIG, or CLUSTER to a program that starts one, or install kind"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In the place of the skips of ``-ra``, which has a line a test's place."""
    reasons = Counter(reason_of(report) for report in skipped(terminalreporter))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"SKIPPED [{count}] {reason}")
    if unheeded := _unheeded(terminalreporter):
        offers = " and ".join(offered(os.environ))
        terminalreporter.write_line(
            f"FAILED: {unheeded} tests found no cluster, but {offers} offers one", red=True, bold=True
        )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and _unheeded(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def skipped(reporter: pytest.TerminalReporter) -> Iterable[pytest.TestReport | pytest.CollectReport]:
    return list(reporter.stats.get("skipped", ()))


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Without the place and the word before it."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return " ".join(text.removeprefix("Skipped: ").split())


def offered(environment: Mapping[str, str]) -> list[str]:
    return [name for name in ("KUBECONFIG", "CLUSTER") if environment.get(name)]


def _unheeded(reporter: pytest.TerminalReporter) -> int:
    if not offered(os.environ):
        return 0
    return sum(reason_of(report) == NO_CLUSTER for report in skipped(reporter))
