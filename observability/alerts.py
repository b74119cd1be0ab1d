"""The chart's alerts, by group."""

from __future__ import annotations

from observability.alert import Alert, Severity
from observability.boards.series import BUDGET, INSTANCE_LABEL, RESOURCE

_SERVED = f"{{{{ $labels.namespace }}}}/{{{{ $labels.{INSTANCE_LABEL} }}}}"
_POD = "{{ $labels.namespace }}/{{ $labels.pod }}"
_RESOURCE = "{{ $labels.namespace }}/{{ $labels.name }}"
_DESCRIBE = "kubectl describe dllm/{{ $labels.name }} -n {{ $labels.namespace }}"


def _share(outcomes: str, window: str) -> str:
    """Of the requests for a completion."""
    counted = "sum by ({by}) (rate(dllm_requests_total{{{selector}}}[{window}]))"
    some = counted.format(by=RESOURCE, selector=f'status=~"{outcomes}"', window=window)
    return f"{some} / {counted.format(by=RESOURCE, selector='', window=window)}"


OPERATOR = (
    Alert(
        "DLLMOperatorNotLeading",
        Severity.CRITICAL,
        "absent(dllm_operator_is_leader == 1)",
        "5m",
        "No operator leads",
        "Nobody looks after the DLLMDeployments: pods that run go on, changes are not followed.",
    ),
    Alert(
        "DLLMOperatorWatchStalled",
        Severity.WARNING,
        "dllm_operator_watch_stalled_seconds > 60",
        "1m",
        f"The watches of operator {_POD} lag",
        "What the operator sees is {{ $value | humanizeDuration }} behind the API server.",
    ),
    Alert(
        "DLLMOperatorInternalErrors",
        Severity.WARNING,
        "sum by (namespace, pod, where) (increase(dllm_operator_internal_errors_total[15m])) > 0",
        "0m",
        f"Operator {_POD} met an exception that nobody expected",
        "In {{ $labels.where }}; its log has the traceback.",
    ),
    Alert(
        "DLLMOperatorReconcilesFail",
        Severity.WARNING,
        'sum by (namespace, pod) (rate(dllm_operator_reconciles_total{outcome="error"}[10m])) '
        "/ sum by (namespace, pod) (rate(dllm_operator_reconciles_total[10m])) > 0.5",
        "15m",
        f"Most reconciles of operator {_POD} fail",
        "{{ $value | humanizePercentage }} of them, each tried again.",
    ),
    Alert(
        "DLLMOperatorQueueStuck",
        Severity.WARNING,
        "sum by (namespace, pod) (dllm_operator_queue_depth) > 0 and on (namespace, pod) "
        "sum by (namespace, pod) (rate(dllm_operator_reconciles_total[10m])) == 0",
        "10m",
        f"Operator {_POD} finishes no reconcile",
        "{{ $value }} resources wait.",
    ),
)

RESOURCES = (
    Alert(
        "DLLMPoolDown",
        Severity.CRITICAL,
        "dllm_operator_pool_ready_pods == 0 and dllm_operator_pool_wanted_pods > 0",
        "10m",
        f"No pod of pool {{{{ $labels.pool }}}} of {_RESOURCE} serves",
        f"{_DESCRIBE} says why.",
    ),
    Alert(
        "DLLMResourceNotReady",
        Severity.WARNING,
        "max by (namespace, name) "
        '(dllm_operator_condition{type="Ready", status!="True", reason!="ScaledToZero"}) == 1',
        "15m",
        f"{_RESOURCE} is not ready",
        f"Not all pods that were asked for serve. {_DESCRIBE} says why.",
    ),
    Alert(
        "DLLMResourceInvalid",
        Severity.WARNING,
        'max by (namespace, name) (dllm_operator_condition{type="SpecValid", status="False"}) == 1',
        "5m",
        f"The spec of {_RESOURCE} makes no sense",
        f"It is not followed; what ran before goes on. {_DESCRIBE} says what is wrong.",
    ),
    Alert(
        "DLLMRolloutStuck",
        Severity.WARNING,
        'max by (namespace, name) (dllm_operator_condition{type="Progressing", status="False", '
        'reason!~"Settled|Paused|RolledBack|InvalidSpec"}) == 1',
        "15m",
        f"A rollout of {_RESOURCE} does not go on",
        f"Old pods serve meanwhile. {_DESCRIBE} says why.",
    ),
    Alert(
        "DLLMPoolRolledBack",
        Severity.WARNING,
        "dllm_operator_pool_rolled_back == 1",
        "0m",
        f"Pool {{{{ $labels.pool }}}} of {_RESOURCE} went back to its former template",
        "New pods of a release, of the tuner or of other nodes did not become ready. The pool serves on.",
    ),
    Alert(
        "DLLMIntegrationMissing",
        Severity.WARNING,
        'max by (namespace, name) (dllm_operator_condition{type="IntegrationsReady", status="False"}) == 1',
        "15m",
        f"{_RESOURCE} asks for an integration that is not installed",
        "Autoscaling, a PodMonitor or an InferencePool is not made.",
    ),
    Alert(
        "DLLMResourceOfAnotherOperator",
        Severity.INFO,
        "dllm_operator_left_resources > 0",
        "30m",
        f"Operator {_POD} leaves {{{{ $value }}}} resources to another",
        "The namespaces of two operators overlap.",
    ),
    Alert(
        "DLLMPodsNotScraped",
        Severity.WARNING,
        "sum by (namespace, name) (dllm_operator_pool_ready_pods) > 0 unless on (namespace, name) "
        f'label_replace(dllm_requests_running, "name", "$1", "{INSTANCE_LABEL}", "(.+)")',
        "15m",
        f"Prometheus has no series of the pods of {_RESOURCE}",
        "{{ $value }} pods serve. Without their series no other alert can see them, and nothing scales them.",
    ),
)

SERVERS = (
    Alert(
        "DLLMModelNotSound",
        Severity.CRITICAL,
        "dllm_model_sound == 0",
        "0m",
        f"The model of {_POD} computes no numbers",
        "Requests in a row came out as NaN or infinity.",
    ),
    Alert(
        "DLLMRequestsFail",
        Severity.CRITICAL,
        f"{_share('error|unavailable|timeout', '5m')} > 0.05",
        "5m",
        f"Requests to {_SERVED} fail",
        "{{ $value | humanizePercentage }} of them end with 500, 503 or 504.",
    ),
    Alert(
        "DLLMRequestsRefused",
        Severity.WARNING,
        f"{_share('refused', '5m')} > 0.05",
        "10m",
        f"Requests to {_SERVED} are refused",
        "{{ $value | humanizePercentage }} of them got 429: the queue is full.",
    ),
    Alert(
        "DLLMQueueSlow",
        Severity.WARNING,
        f"histogram_quantile(0.95, sum by (le, {RESOURCE}) (rate(dllm_queue_seconds_bucket[5m]))) > 10",
        "10m",
        f"Requests to {_SERVED} wait long",
        "One in twenty waits {{ $value | humanizeDuration }} or longer before its first step.",
    ),
    Alert(
        "DLLMPreemptions",
        Severity.WARNING,
        f"sum by ({RESOURCE}) (increase(dllm_preemptions_total[10m])) "
        f'> sum by ({RESOURCE}) (increase(dllm_requests_total{{status="success"}}[10m]))',
        "10m",
        f"{_SERVED} begins requests again and again",
        "More requests went back to the queue for want of KV pages than were answered.",
    ),
    Alert(
        "DLLMOutOfMemory",
        Severity.WARNING,
        'sum by (namespace, pod, phase) (increase(dllm_oom_total{phase!="profile"}[15m])) > 0',
        "0m",
        f"{_POD} ran out of device memory",
        "In a {{ $labels.phase }} step. Contained: its requests were tried again with a smaller budget.",
    ),
    Alert(
        "DLLMTokenBudgetCut",
        Severity.WARNING,
        f'dllm_token_budget < ignoring (setting) dllm_live_setting{{setting="{BUDGET}"}}',
        "15m",
        f"{_POD} runs with less than its token budget",
        "{{ $value }} tokens a step since it ran out of memory.",
    ),
)

TUNING = (
    Alert(
        "DLLMTuningFileRefused",
        Severity.WARNING,
        "dllm_tuning_refused == 1",
        "10m",
        f"{_POD} refuses its tuning file",
        "The last good settings stay in force.",
    ),
    Alert(
        "DLLMTuningTrouble",
        Severity.WARNING,
        "max by (namespace, name, pool, reason) (dllm_operator_pool_condition"
        '{reason=~"Leak|HostOutOfMemory|OutOfMemory|NotApplied|NoReadings"}) == 1',
        "30m",
        f"Pool {{{{ $labels.pool }}}} of {_RESOURCE} cannot be tuned",
        f"The tuner says {{{{ $labels.reason }}}}. {_DESCRIBE} says more.",
    ),
)

GROUPS = {
    "dllm-operator": OPERATOR,
    "dllm-resources": RESOURCES,
    "dllm-servers": SERVERS,
    "dllm-tuning": TUNING,
}
ALERTS = tuple(alert for group in GROUPS.values() for alert in group)
