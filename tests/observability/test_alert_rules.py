"""Each alert fires when it should and not before, by ``promtool test rules``."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability.alert import Alert
from observability.alerts import ALERTS
from observability.boards.series import INSTANCE_LABEL

RULES = Path(__file__).resolve().parents[2] / "charts/dllm-operator/files/alerts.yaml"
MINUTES = 40

OPERATOR = {"namespace": "dllm-system", "pod": "operator-0"}
RESOURCE = {"namespace": "team", "name": "chat"}
POOL = RESOURCE | {"pool": "l4"}
POD = {"namespace": "team", "pod": "chat-l4-0", INSTANCE_LABEL: "chat"}
SERVED = {"namespace": "team", INSTANCE_LABEL: "chat"}

Values = str | int


@dataclass(frozen=True, slots=True)
class Case:
    """``fires`` and ``quiet`` are series with values of promtool, a number standing for a constant."""

    fires: dict[str, Values]
    quiet: dict[str, Values]
    labels: dict[str, str] = field(default_factory=dict)
    value: str = ""  # as the alert's text prints it


def series(name: str, labels: dict[str, str], **more: str) -> str:
    told = ",".join(f'{label}="{value}"' for label, value in (labels | more).items())
    return f"{name}{{{told}}}"


def condition(kind: str, status: str, reason: str) -> dict[str, Values]:
    return {series("dllm_operator_condition", RESOURCE, type=kind, status=status, reason=reason): 1}


def outcomes(**by_status: str) -> dict[str, Values]:
    return {series("dllm_requests_total", POD, status=status): values for status, values in by_status.items()}


def reconciles(success: str, error: str) -> dict[str, Values]:
    name = "dllm_operator_reconciles_total"
    return {
        series(name, OPERATOR, outcome="success"): success,
        series(name, OPERATOR, outcome="error"): error,
    }


def queued(below_ten_seconds: str, all_of_them: str) -> dict[str, Values]:
    name = "dllm_queue_seconds_bucket"
    return {
        series(name, POD, le="10.0"): below_ten_seconds,
        series(name, POD, le="30.0"): all_of_them,
        series(name, POD, le="+Inf"): all_of_them,
    }


def one(name: str, labels: dict[str, str], value: Values, **more: str) -> dict[str, Values]:
    return {series(name, labels, **more): value}


LEADER, STALLED = "dllm_operator_is_leader", "dllm_operator_watch_stalled_seconds"
READY, WANTED = "dllm_operator_pool_ready_pods", "dllm_operator_pool_wanted_pods"
ERRORS, DEPTH = "dllm_operator_internal_errors_total", "dllm_operator_queue_depth"
BUDGET, LIVE = "dllm_token_budget", "dllm_live_setting"
SETTING = {"setting": "max_num_batched_tokens"}

CASES = {
    "DLLMOperatorNotLeading": Case(one(LEADER, OPERATOR, 0), one(LEADER, OPERATOR, 1)),
    "DLLMOperatorWatchStalled": Case(
        one(STALLED, OPERATOR, 90), one(STALLED, OPERATOR, 30), OPERATOR, "1m 30s"
    ),
    "DLLMOperatorInternalErrors": Case(
        one(ERRORS, OPERATOR, f"0x{MINUTES - 5} 1x10", where="watch"),
        one(ERRORS, OPERATOR, 3, where="watch"),
        OPERATOR | {"where": "watch"},
    ),
    "DLLMOperatorReconcilesFail": Case(
        reconciles("0+20x99", "0+60x99"), reconciles("0+60x99", "0+20x99"), OPERATOR, "75%"
    ),
    "DLLMOperatorQueueStuck": Case(
        one(DEPTH, OPERATOR, 7) | reconciles("5x99", "1x99"),
        one(DEPTH, OPERATOR, 7) | reconciles("0+1x99", "1x99"),
        OPERATOR,
        "7",
    ),
    "DLLMPoolDown": Case(
        one(READY, POOL, 0) | one(WANTED, POOL, 2), one(READY, POOL, 0) | one(WANTED, POOL, 0), POOL
    ),
    "DLLMResourceNotReady": Case(
        condition("Ready", "False", "CrashLoop"), condition("Ready", "False", "ScaledToZero"), RESOURCE
    ),
    "DLLMResourceInvalid": Case(
        condition("SpecValid", "False", "InvalidSpec"), condition("SpecValid", "True", "Valid"), RESOURCE
    ),
    "DLLMRolloutStuck": Case(
        condition("Progressing", "False", "RolloutBlocked"),
        condition("Progressing", "False", "Settled") | condition("Progressing", "True", "RollingOut"),
        RESOURCE,
    ),
    "DLLMPoolRolledBack": Case(
        one("dllm_operator_pool_rolled_back", POOL, 1), one("dllm_operator_pool_rolled_back", POOL, 0), POOL
    ),
    "DLLMIntegrationMissing": Case(
        condition("IntegrationsReady", "False", "CRDMissing"),
        condition("IntegrationsReady", "True", "Created"),
        RESOURCE,
    ),
    "DLLMResourceOfAnotherOperator": Case(
        one("dllm_operator_left_resources", OPERATOR, 3),
        one("dllm_operator_left_resources", OPERATOR, 0),
        OPERATOR,
        "3",
    ),
    "DLLMPodsNotScraped": Case(
        one(READY, POOL, 2) | one("dllm_requests_running", POD | {INSTANCE_LABEL: "other"}, 0),
        one(READY, POOL, 2) | one("dllm_requests_running", POD, 0),
        RESOURCE,
        "2",
    ),
    "DLLMModelNotSound": Case(one("dllm_model_sound", POD, 0), one("dllm_model_sound", POD, 1), POD),
    "DLLMRequestsFail": Case(
        outcomes(success="0+90x99", unavailable="0+10x99"),
        outcomes(success="0+97x99", error="0+3x99", invalid="0+50x99"),
        SERVED,
        "10%",
    ),
    "DLLMRequestsRefused": Case(
        outcomes(success="0+90x99", refused="0+10x99"),
        outcomes(success="0+97x99", refused="0+3x99", error="0+50x99"),
        SERVED,
        "10%",
    ),
    "DLLMQueueSlow": Case(queued("0+90x99", "0+100x99"), queued("0+96x99", "0+100x99"), SERVED, "20s"),
    "DLLMPreemptions": Case(
        one("dllm_preemptions_total", POD, "0+9x99") | outcomes(success="0+4x99"),
        one("dllm_preemptions_total", POD, "0+3x99") | outcomes(success="0+4x99"),
        SERVED,
    ),
    "DLLMOutOfMemory": Case(
        one("dllm_oom_total", POD, f"0x{MINUTES - 5} 1x10", phase="refresh"),
        one("dllm_oom_total", POD, f"0x{MINUTES - 5} 1x10", phase="profile"),
        {"namespace": "team", "pod": "chat-l4-0", "phase": "refresh"},
    ),
    "DLLMTokenBudgetCut": Case(
        one(BUDGET, POD, 2048) | one(LIVE, POD | SETTING, 4096),
        one(BUDGET, POD, 4096) | one(LIVE, POD | SETTING, 4096),
        POD,
        "2048",
    ),
    "DLLMTuningFileRefused": Case(
        one("dllm_tuning_refused", POD, 1), one("dllm_tuning_refused", POD, 0), POD
    ),
    "DLLMTuningTrouble": Case(
        one("dllm_operator_pool_condition", POOL, 1, type="TuningConverged", status="False", reason="Leak"),
        one(
            "dllm_operator_pool_condition", POOL, 1, type="TuningConverged", status="True", reason="Satisfied"
        ),
        POOL | {"reason": "Leak"},
    ),
}


def rendered(template: str, case: Case) -> str:
    """Of the templates that the alerts use. A label that the alert does not have is an error."""
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: case.labels[found[1]], template)
    return re.sub(r"\{\{ \$value(?: \| \w+)? \}\}", case.value, text)


def promtool_test(given: dict[str, Values], at: str, alert: Alert, *expected: Any) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": values if isinstance(values, str) else f"{values}x{MINUTES + 60}"}
            for name, values in given.items()
        ],
        "alert_rule_test": [{"eval_time": at, "alertname": alert.name, "exp_alerts": list(expected)}],
    }


def test_every_alert_has_its_cases() -> None:
    assert list(CASES) == [alert.name for alert in ALERTS]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: install Debian's prometheus")
@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_fires_for_what_it_is_about_and_for_nothing_else(alert: Alert, tmp_path: Path) -> None:
    case = CASES[alert.name]
    rule = alert.rule()
    fired = {
        "exp_labels": rule["labels"] | case.labels,
        "exp_annotations": {name: rendered(text, case) for name, text in rule["annotations"].items()},
    }
    tests = [
        promtool_test(case.fires, f"{MINUTES}m", alert, fired),
        promtool_test(case.quiet, f"{MINUTES}m", alert),
    ]
    if alert.held_for != "0m":
        tests.append(promtool_test(case.fires, "30s", alert))
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))

    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
