"""Condition transitions as Kubernetes Events."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime

import structlog

from dllm_operator.api.v1alpha1 import API_VERSION, KIND
from dllm_operator.cluster.kinds import EVENT
from dllm_operator.cluster.kube import FIELD_MANAGER, Kube, KubeError
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.text import readable
from dllm_operator.reporting.conditions import MAX_MESSAGE, Transition, timestamp

log = structlog.get_logger(__name__)


async def announce(
    kube: Kube, body: Manifest, transitions: Iterable[Transition], now: datetime, instance: str
) -> None:
    """One Event a transition, on the resource ``body``. One that is refused is only logged: the status tells
    the same."""
    for transition in transitions:
        news = event(body, transition, now, instance)
        try:
            await kube.create(EVENT, news)
        except (KubeError, OSError) as error:
            log.warning("event not written", reason=str(transition.reason), error=str(error))


def event(body: Manifest, transition: Transition, now: datetime, instance: str) -> Manifest:
    metadata, message = body["metadata"], str(transition.type)
    if transition.message:
        message = readable(f"{message}: {transition.message}")[:MAX_MESSAGE]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "type": "Warning" if transition.is_warning else "Normal",
        "reason": str(transition.reason),
        "message": message,
        "action": str(transition.type),
        "count": 1,
        "firstTimestamp": timestamp(now),
        "lastTimestamp": timestamp(now),
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "reportingInstance": instance,
    }
