"""Labels, annotations and names of what the operator makes."""

from __future__ import annotations

import hashlib

MANAGER = "dllm-operator"
NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"
POOL = "serving.dllm.dev/pool"
SPEC_HASH = "serving.dllm.dev/spec-hash"
ROLLOUT = "serving.dllm.dev/rollout"  # what a Deployment remembers of its rollouts
TUNING_RESTART = "serving.dllm.dev/tuning-restart"  # generation of the settings that pods restarted for
ENGINE_TYPE = "llm-d.ai/engine-type"  # endpoint pickers read vLLM's metric names where they see it

API_PORT_NAME, METRICS_PORT_NAME = "http", "metrics"  # of a serving pod
KEYS_VOLUME = "auth"  # of a serving pod that asks for keys
OPERATOR_LABELS = {NAME: MANAGER}  # of the operator's own pods, whatever its release

MANAGED_SELECTOR = f"{MANAGED_BY}={MANAGER}"
MAX_NAME = 63
DOOR = "front-door"  # which no pool may be called while there is one


def child_labels(instance: str, pool: str | None = None) -> dict[str, str]:
    """Labels of every child of ``instance``; pool children also name their pool."""
    labels = {NAME: "dllm-serve", INSTANCE: instance, MANAGED_BY: MANAGER}
    return labels if pool is None else labels | {POOL: pool}


def pod_selector(instance: str, pool: str | None = None) -> dict[str, str]:
    """Labels that select the pods of ``instance``, or of one of its pools."""
    selector = {INSTANCE: instance, MANAGED_BY: MANAGER}
    return selector if pool is None else selector | {POOL: pool}


def cache_claim_name(instance: str) -> str:
    """The claim that ``model.cache.size`` makes."""
    return child_name(instance, "cache")


def account_name(instance: str) -> str:
    """The ServiceAccount of the pods. Its suffix keeps it apart from accounts that bear the name of what
    they are for."""
    return child_name(instance, "dllm")


def door_name(instance: str) -> str:
    """What goes with the front door's Deployments."""
    return child_name(instance, DOOR)


def door_names(instance: str) -> tuple[str, str]:
    """The Deployments of the first door, which has the queue, and of the second, which stands in for it."""
    return child_name(instance, DOOR, "1"), child_name(instance, DOOR, "2")


def door_selector(instance: str) -> dict[str, str]:
    """Labels of the front door's pods, which no selector of serving pods finds."""
    return {NAME: "dllm-front-door", INSTANCE: instance}


def engines_name(instance: str, pool: str) -> str:
    """The headless Service by which the front door finds the pods of a pool."""
    return child_name(instance, pool, "engines")


def child_name(*parts: str) -> str:
    """Parts joined by dashes; what exceeds a DNS label is cut and gets a hash of the whole."""
    name = "-".join(parts)
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME - 9].rstrip('-.')}-{digest}"
