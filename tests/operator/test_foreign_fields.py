"""What others have set in a pod template: who, which, undone a few times, and let where they insist."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.cluster.field_owners import find, foreign_fields
from dllm_operator.cluster.kube import Kind, KubeError
from dllm_operator.cluster.observe import Manifest
from dllm_operator.writing.apply import MOST_UNDONE, Applier, Edit, Outcome

from tests.operator.objects import FakeKube, make_observed, make_resource, render_resource

ENGINE = 'k:{"name":"engine"}'
EXTRA = 'k:{"name":"EXTRA"}'
VARIABLE = {"f:containers": {ENGINE: {"f:env": {EXTRA: {".": {}, "f:name": {}, "f:value": {}}}}}}
OURS = {"f:containers": {ENGINE: {".": {}, "f:image": {}, "f:name": {}}}, "f:tolerations": {}}


def entry(manager: str, fields: Manifest, **more: Any) -> Manifest:
    below = {"f:spec": {"f:template": {"f:spec": fields}}}
    return {"manager": manager, "operation": "Update", "fieldsV1": below} | more


def body(*entries: Manifest) -> Manifest:
    return {"metadata": {"managedFields": [entry("dllm-operator", OURS), *entries]}}


@pytest.mark.parametrize(
    ("entries", "fields"),
    [
        pytest.param([], [], id="nobody else"),
        pytest.param([entry("kubectl-edit", VARIABLE)], ["containers.[engine].env.[EXTRA]"], id="an item"),
        pytest.param([entry("keel", {"f:tolerations": {}})], [], id="what we say as well"),
        pytest.param(
            [entry("a", {"f:containers": {ENGINE: {"f:args": {}}}})],
            ["containers.[engine].args"],
            id="a leaf",
        ),
        pytest.param(
            [entry("kubectl", {"f:nodeSelector": {".": {}, "f:zone": {}}})], ["nodeSelector"], id="a map"
        ),
        pytest.param([entry("kcm", VARIABLE, subresource="status")], [], id="a subresource"),
        pytest.param([entry("dllm-operator-replicas", VARIABLE)], [], id="our other names"),
        pytest.param(
            [{"manager": "kubectl-rollout", "fieldsV1": {"f:spec": {"f:template": {"f:metadata": {}}}}}],
            [],
            id="the template's metadata",
        ),
    ],
)
def test_fields_that_others_alone_have_set_are_named(entries: list[Manifest], fields: list[str]) -> None:
    found = foreign_fields(body(*entries), "dllm-operator")

    assert [str(field) for field in found] == fields
    assert {field.manager for field in found} <= {each["manager"] for each in entries}


def test_a_path_leads_to_the_place_of_an_item() -> None:
    spec = {"containers": [{"name": "side"}, {"name": "engine", "env": [{"name": "A"}, {"name": "EXTRA"}]}]}
    path = ("f:containers", ENGINE, "f:env", EXTRA)

    assert find(spec, path) == ("/containers/1/env/1", {"name": "EXTRA"})
    assert find(spec, (*path, "f:value")) is None
    assert find({"nodeSelector": {"a/b": "c"}}, ("f:nodeSelector", "f:a/b")) == ("/nodeSelector/a~1b", "c")


class EditedKube(FakeKube):
    """Someone sets a variable of the Deployment; with ``insists`` again after every write of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.is_edited = self.insists = False
        self.operations: list[Mapping[str, Any]] = []
        self.refusal: KubeError | None = None

    def set_variable(self) -> Manifest:
        self.is_edited = True
        live = self.objects["Deployment", "chat-cpu"]
        return self.show(live | {"metadata": live["metadata"] | {"resourceVersion": self.next_version()}})

    def show(self, live: Manifest) -> Manifest:
        live = copy.deepcopy(live)
        env = live["spec"]["template"]["spec"]["containers"][0]["env"]
        env[:] = [each for each in env if each["name"] != "EXTRA"]
        entries = []
        if self.is_edited:
            env.append({"name": "EXTRA", "value": "secret-value"})
            entries = [entry("kubectl-edit", VARIABLE)]
        live["metadata"]["managedFields"] = entries
        return self.store(live)

    async def apply(self, kind: Kind, manifest: Manifest, **options: Any) -> Manifest:
        stored = await super().apply(kind, manifest, **options)
        is_written = kind.kind == "Deployment" and not options.get("is_dry_run")
        return self.show(stored) if is_written else stored

    async def edit(
        self, kind: Kind, namespace: str, name: str, operations: Sequence[Mapping[str, Any]]
    ) -> Manifest:
        self._note("edit", kind.kind, name)
        self.operations += operations
        if self.refusal is not None:
            raise self.refusal
        self.is_edited = self.insists
        return self.set_variable() if self.insists else self.show(self.objects[kind.kind, name])


class Place:
    def __init__(self) -> None:
        self.kube, self.view = EditedKube(), ClusterView()
        self.applier = Applier(self.kube, self.view)  # type: ignore[arg-type]
        self.sync()

    def sync(self, **spec: Any) -> Outcome:
        resource = make_resource(device="cpu", **spec)
        self.kube.calls.clear()
        self.kube.operations.clear()
        return asyncio.run(self.applier.sync(resource, render_resource(resource, make_observed()), ()))

    def edit_by_hand(self) -> None:
        self.view.children["Deployment"].put(self.kube.set_variable())


def test_a_variable_set_by_hand_is_removed_and_told_once_without_its_value() -> None:
    place = Place()
    place.edit_by_hand()

    outcome = place.sync()

    [edit] = outcome.edits
    assert (edit.manager, edit.fields) == ("kubectl-edit", ("containers.[engine].env.[EXTRA]",))
    assert "secret-value" not in json.dumps(edit.fields)
    same, removal = place.kube.operations
    assert (same["op"], same["value"]) == ("test", {"name": "EXTRA", "value": "secret-value"})
    assert (removal["op"], removal["path"]) == ("remove", same["path"])
    assert removal["path"].startswith("/spec/template/spec/containers/0/env/")
    env = place.kube.objects["Deployment", "chat-cpu"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert "EXTRA" not in {each["name"] for each in env}
    assert (place.sync().edits, place.kube.calls) == ((), [])


def test_whoever_sets_it_again_and_again_is_let_after_a_few_times_until_the_resource_changes() -> None:
    place = Place()
    place.kube.insists = True
    edits: list[Edit] = []
    for _ in range(MOST_UNDONE + 3):
        place.edit_by_hand()
        edits += place.sync().edits

    assert [edit.is_left for edit in edits] == [False] * (MOST_UNDONE - 1) + [True]
    assert place.kube.calls == []

    assert len(place.sync(engine={"maxNumSeqs": 4}).edits) == 1


def test_a_deployment_that_has_moved_meanwhile_is_looked_at_again() -> None:
    place = Place()
    place.edit_by_hand()
    place.kube.refusal = KubeError(422, "Invalid", "the server rejected our request")

    for _ in range(2 * MOST_UNDONE):
        place.edit_by_hand()
        outcome = place.sync()
        assert outcome.all_problems == ()
        assert [edit.is_left for edit in outcome.edits] == [False]

    place.kube.refusal = None
    place.edit_by_hand()
    place.sync()
    assert not place.kube.is_edited


def test_a_field_of_ours_that_somebody_took_over_is_applied_and_not_removed() -> None:
    place = Place()
    live = place.kube.objects["Deployment", "chat-cpu"]
    taken = entry("keel", {"f:containers": {ENGINE: {"f:image": {}}}})
    metadata = live["metadata"] | {"resourceVersion": place.kube.next_version(), "managedFields": [taken]}
    place.view.children["Deployment"].put(place.kube.store(live | {"metadata": metadata}))

    outcome = place.sync()

    assert [edit.fields for edit in outcome.edits] == [("containers.[engine].image",)]
    assert place.kube.operations == []
    assert ("apply", "Deployment", "chat-cpu") in place.kube.calls
