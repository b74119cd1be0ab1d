"""What the watches bring, and what they bring that nobody can read."""

from __future__ import annotations

import asyncio
from typing import Any

import kopf
import pytest
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.observe import Manifest
from dllm_operator.watching.handlers import Handlers
from structlog.testing import capture_logs

from tests.operator.objects import NAMESPACE, make_body, make_node_body, make_pod


class Watches:
    """Handlers as kopf calls them."""

    def __init__(self) -> None:
        self.view, self.faults = ClusterView(), 0
        self.woken: list[tuple[str, str]] = []
        registry = kopf.OperatorRegistry()
        handlers = Handlers(self.view, lambda key, _: self.woken.append(key), lambda _: None, self.fail)
        handlers.register(registry)
        self.indices = {
            h.selector.any_name: h.fn for h in registry._indexing.get_all_handlers() if h.selector
        }
        self.events = {h.selector.any_name: h.fn for h in registry._watching.get_all_handlers() if h.selector}

    def fail(self) -> None:
        self.faults += 1

    def see(self, plural: str, body: Manifest) -> None:
        """In a list or by a watch, as an event of both kinds of handlers."""

        async def call() -> None:
            await self.indices[plural](body=body)
            await self.events[plural](event={"type": "MODIFIED", "object": body})

        with capture_logs():
            asyncio.run(call())


def without(body: Manifest, *path: str) -> Manifest:
    if len(path) == 1:
        return {name: value for name, value in body.items() if name != path[0]}
    return body | {path[0]: without(body[path[0]], *path[1:])}


@pytest.mark.parametrize(
    ("plural", "body"),
    [
        pytest.param("nodes", without(make_node_body("bad"), "metadata", "name"), id="node without a name"),
        pytest.param("nodes", make_node_body("bad") | {"spec": {"taints": [{}]}}, id="taint without effect"),
        pytest.param("nodes", make_node_body("bad") | {"status": None}, id="node without status"),
        pytest.param("pods", without(make_pod(), "metadata", "uid"), id="pod without uid"),
        pytest.param("pods", make_pod(metadata={"resourceVersion": "new"}), id="version that is no number"),
        pytest.param("horizontalpodautoscalers", make_pod(name="hpa"), id="autoscaler without a target"),
        pytest.param("customresourcedefinitions", {"metadata": {}}, id="definition without a name"),
        pytest.param("dllmdeployments", without(make_body(), "metadata", "uid"), id="resource without uid"),
    ],
)
def test_an_object_that_nobody_can_read_is_counted_and_keeps_no_other_from_being_seen(
    plural: str, body: dict[str, Any]
) -> None:
    watches = Watches()

    watches.see(plural, body)
    watches.see("nodes", make_node_body())
    watches.see("dllmdeployments", make_body(name="other"))

    assert watches.faults > 0
    assert "node-a" in watches.view.nodes
    assert (NAMESPACE, "other") in watches.woken
