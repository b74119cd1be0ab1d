"""Condition transitions as Kubernetes Events."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime

from dllm_operator.api.v1alpha1 import API_VERSION, KIND
from dllm_operator.cluster.kinds import EVENT
from dllm_operator.cluster.kube import FIELD_MANAGER, Kube
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.reporting.conditions import Transition, timestamp


async def announce(
    kube: Kube, resource: Resource, transitions: Iterable[Transition], now: datetime, instance: str
) -> None:
    """One Event a transition, on the resource."""
    for transition in transitions:
        await kube.create(EVENT, event(resource, transition, now, instance))


def event(resource: Resource, transition: Transition, now: datetime, instance: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{resource.name}.{uuid.uuid4().hex[:16]}", "namespace": resource.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": resource.name,
            "namespace": resource.namespace,
            "uid": resource.uid,
        },
        "type": "Warning" if transition.is_warning else "Normal",
        "reason": transition.reason,
        "message": f"{transition.type}: {transition.message}" if transition.message else str(transition.type),
        "action": str(transition.type),
        "count": 1,
        "firstTimestamp": timestamp(now),
        "lastTimestamp": timestamp(now),
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "reportingInstance": instance,
    }
