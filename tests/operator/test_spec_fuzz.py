"""Whatever the schema admits is planned, rendered and told of, or refused in words; nothing raises."""

from __future__ import annotations

import asyncio
import json

from dllm_operator.api.status import SOMETIMES, ConditionType
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.process.reconciler import Reconciler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.operator.objects import (
    DEFAULTS,
    NAMESPACE,
    FakeKube,
    make_body,
    make_claims,
    make_node_body,
    make_planner,
    make_rollouts,
)
from tests.operator.spec_strategy import Spec, specs

LABEL_VALUES = st.from_regex(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,20}[A-Za-z0-9])?)?", fullmatch=True)
GPU_LABELS = st.dictionaries(
    st.sampled_from(
        [
            f"nvidia.com/{name}"
            for name in (
                "gpu.product",
                "gpu.memory",
                "gpu.replicas",
                "gpu.sharing-strategy",
                "mig-1g.10gb.product",
                "mig-1g.10gb.memory",
            )
        ]
    ),
    LABEL_VALUES,
)
QUANTITIES = st.sampled_from(["0", "8", "1k", "1500m", "9E", "-1"])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs, GPU_LABELS, QUANTITIES)
def test_every_spec_on_every_node_ends_in_a_status_for_its_generation(
    spec: Spec, labels: dict[str, str], gpus: str
) -> None:
    kube, view = FakeKube(), ClusterView()
    node = make_node_body()
    node["metadata"]["labels"] |= labels
    node["status"]["allocatable"] = {"nvidia.com/gpu": gpus}
    view.put_node(node)
    view.resources.put(kube.store(make_body(generation=3) | {"spec": spec}))
    claims, planner = make_claims(kube, view), make_planner(kube, view)
    reconciler = Reconciler(kube, view, planner, DEFAULTS, claims, "operator-0", make_rollouts(view))  # type: ignore[arg-type]

    with capture_logs():
        for _ in range(2):
            asyncio.run(reconciler.reconcile((NAMESPACE, "chat")))

    status = kube.objects["DLLMDeployment", "chat"]["status"]
    assert status["observedGeneration"] == 3
    told = [condition["type"] for condition in status["conditions"]]
    assert sorted({*told, *SOMETIMES}) == sorted(ConditionType)
    assert len(told) == len(set(told))
    json.dumps(list(kube.objects.values()), allow_nan=False).encode()
