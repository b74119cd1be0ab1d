"""A resource's plan as of now, from the cluster view and from what is known of its pools' tuning."""

from __future__ import annotations

from dataclasses import replace

from dllm_operator.api.v1alpha1 import DLLMDeploymentSpec
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.observe import Observed
from dllm_operator.cluster.profile_store import ProfileStore
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.book import TuningBook
from dllm_operator.planning.plan import Plan, plan
from dllm_operator.planning.scaling_book import ScalingBook


class Planner:
    """The reconcile and the tuner plan alike; a tuning that begins here is in the book at once."""

    def __init__(
        self, view: ClusterView, book: TuningBook, profiles: ProfileStore, server_image: str
    ) -> None:
        self._view, self.book, self._profiles = view, book, profiles
        self.scalings = ScalingBook()
        self._server_image = server_image

    def observe(self, resource: Resource) -> Observed:
        return replace(
            self._view.observe(resource),
            tunings=self.book.of(resource),
            profiles=self._profiles.known,
            server_image=self._server_image,
            scaling=self.scalings.of(resource.uid),
        )

    def plan(self, resource: Resource, spec: DLLMDeploymentSpec) -> Plan:
        observed = self.observe(resource)
        planned = plan(resource.name, spec, observed)
        for pool in planned.pools:
            if pool.tuning is not None and pool.tuning is not observed.tunings.get(pool.name):
                self.book.put(resource, pool.name, pool.tuning)
        return planned
