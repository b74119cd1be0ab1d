"""Traces of reconciles, as a collector gets them from an operator."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import structlog
from dllm_operator.cluster.cluster_view import ResourceKey
from dllm_operator.cluster.kube import KubeError
from dllm_operator.process.trace import traced
from dllm_server.tracing import Tracer, open_tracer

from tests.observability.otlp_receiver import OtlpReceiver, ReceivedSpan
from tests.operator.test_reconciler import KEY, Place


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as collector:
        for name, value in collector.environment.items():
            monkeypatch.setenv(name, value)
        yield collector


@pytest.fixture
def tracer(collector: OtlpReceiver) -> Iterator[Tracer]:
    tracer = open_tracer("dllm-operator")
    assert tracer is not None
    yield tracer
    tracer.close()


def trace_of(collector: OtlpReceiver) -> list[ReceivedSpan]:
    (root,) = collector.named("reconcile")
    return collector.trace(root.trace_id)


def test_a_reconcile_is_a_trace_of_its_stages(collector: OtlpReceiver, tracer: Tracer) -> None:
    place = Place()

    asyncio.run(traced(place.reconciler.reconcile, tracer)(KEY))

    root, *stages = trace_of(collector)
    assert root.attributes == {"k8s.namespace.name": KEY[0], "dllm.resource.name": KEY[1]}
    assert root.resource["service.name"] == "dllm-operator"
    assert [span.name for span in stages] == ["design", "write", "report"]
    assert {span.parent_id for span in stages} == {root.span_id}
    assert not any(span.has_failed for span in (root, *stages))


def test_a_reconcile_that_fails_says_with_what_and_where_and_its_log_lines_carry_the_trace(
    collector: OtlpReceiver, tracer: Tracer
) -> None:
    place, seen = Place(), dict[str, object]()

    async def failing(key: ResourceKey) -> float | None:
        seen.update(structlog.contextvars.get_contextvars())
        place.kube.refusals["Service", "chat"] = KubeError(403, "Forbidden", "no")
        return await place.reconciler.reconcile(key)

    with pytest.raises(Exception, match="Service"):
        asyncio.run(traced(failing, tracer)(KEY))

    root = next(span for span in trace_of(collector) if not span.parent_id)
    assert root.has_failed
    assert root.attributes["error.type"] == "ReconcileError"
    assert seen == {"trace_id": root.trace_id, "span_id": root.span_id}
    assert structlog.contextvars.get_contextvars() == {}


def test_without_a_collector_a_reconcile_is_left_as_it_is() -> None:
    reconcile = Place().reconciler.reconcile

    assert traced(reconcile, open_tracer("dllm-operator", {})) == reconcile
