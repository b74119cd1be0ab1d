from __future__ import annotations

import asyncio
from typing import Any

from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.kube import Kind
from dllm_operator.cluster.observe import Manifest
from dllm_operator.writing.apply import Applier

from tests.operator.objects import (
    FakeKube,
    make_gpu,
    make_observed,
    make_resource,
    render_resource,
)

SERVICE = ("apply", "Service", "chat")


class RewritingKube(FakeKube):
    """An API server whose webhook stores every Service with another type than was applied."""

    async def apply(self, kind: Kind, manifest: Manifest, **options: Any) -> Manifest:
        stored = await super().apply(kind, manifest, **options)
        if kind.kind != "Service" or options.get("is_dry_run"):
            return stored
        return self.store(stored | {"spec": stored["spec"] | {"type": "NodePort"}})


class Place:
    def __init__(self) -> None:
        self.kube, self.view = RewritingKube(), ClusterView()
        self.restart()

    def restart(self) -> None:
        self.applier = Applier(self.kube, self.view)  # type: ignore[arg-type]

    def sync(self, **spec: Any) -> list[tuple[str, str, str]]:
        """What was written."""
        manifests = render_resource(make_resource(**spec), make_observed(gpu_types=(make_gpu(),)))
        self.kube.calls.clear()
        assert asyncio.run(self.applier.sync(make_resource(**spec), manifests, ())).problems == ()
        return self.kube.calls


def test_a_child_that_a_webhook_rewrites_is_written_once() -> None:
    place = Place()
    assert SERVICE in place.sync()

    assert place.sync() == []
    assert place.sync() == []


def test_a_changed_manifest_is_written_although_the_rewritten_child_has_not_moved() -> None:
    place = Place()
    place.sync()

    assert SERVICE in place.sync(networking={"port": 9000})
    assert place.sync(networking={"port": 9000}) == []


def test_a_rewritten_child_that_moves_is_looked_at_again() -> None:
    place = Place()
    place.sync()
    live = place.kube.objects["Service", "chat"]
    metadata = live["metadata"] | {"resourceVersion": place.kube.next_version()}
    place.view.children["Service"].put(place.kube.store(live | {"metadata": metadata}))

    assert place.sync() == [SERVICE]
    assert place.sync() == []


def test_a_restarted_operator_writes_a_rewritten_child_once_more() -> None:
    place = Place()
    place.sync()

    place.restart()

    assert place.sync() == [SERVICE]
    assert place.sync() == []


def test_a_kind_that_was_forgotten_is_asked_for_and_known_again() -> None:
    place = Place()
    place.sync()
    services = place.view.children["Service"]
    known = dict(services.objects)

    services.clear()

    assert place.sync() == []
    assert services.objects.keys() == known.keys()
    assert services.owned(("team-a", "chat")).keys() == {"chat"}


def test_a_child_that_went_unseen_is_made_again_once_its_kind_is_forgotten() -> None:
    place = Place()
    place.sync()
    del place.kube.objects["Service", "chat"]
    assert place.sync() == []

    place.view.children["Service"].clear()

    assert SERVICE in place.sync()
