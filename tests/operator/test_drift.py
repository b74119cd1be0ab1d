from __future__ import annotations

import copy
from typing import Any

import pytest
from dllm_operator.cluster.labels import SPEC_HASH
from dllm_operator.cluster.observe import Manifest
from dllm_operator.writing.drift import has_drifted, with_hash
from hypothesis import given
from hypothesis import strategies as st

from tests.operator.objects import by_kind, make_gpu, make_observed, make_resource, render_resource

ENV = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]


def make_manifest(**spec: Any) -> Manifest:
    return {"metadata": {"name": "chat", "labels": {"app": "chat"}}, "spec": spec}


def drifts(wanted: dict[str, Any], live: dict[str, Any]) -> bool:
    """Whether a child applied with spec ``wanted`` must be applied again when its spec reads ``live``."""
    manifest = with_hash(make_manifest(**wanted))
    return has_drifted(manifest, manifest | {"spec": live})


@pytest.mark.parametrize(
    ("wanted", "live"),
    [
        pytest.param({"replicas": 1}, {"replicas": 1}, id="equal"),
        pytest.param({"replicas": 1}, {"replicas": 1, "paused": False}, id="a default beside it"),
        pytest.param({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, id="a default inside it"),
        pytest.param({"cpu": "0.5"}, {"cpu": "500m"}, id="half a core in millicores"),
        pytest.param({"memory": "1024Mi"}, {"memory": "1Gi"}, id="mebibytes in gibibytes"),
        pytest.param({"cpu": "2"}, {"cpu": 2}, id="a number without quotes"),
        pytest.param({"a": {}}, {}, id="an empty map is dropped"),
        pytest.param({"a": []}, {}, id="an empty list is dropped"),
        pytest.param({"a": ""}, {}, id="an empty string is dropped"),
        pytest.param({"a": None}, {}, id="a null is dropped"),
        pytest.param({"emptyDir": {}}, {"emptyDir": {}}, id="an empty map is kept"),
        pytest.param({"env": ENV}, {"env": ENV[::-1]}, id="named items in another order"),
        pytest.param({"env": ENV}, {"env": [*ENV, {"name": "C"}]}, id="somebody else's item"),
        pytest.param(
            {"ports": [{"name": "http", "port": 80}]},
            {"ports": [{"name": "http", "port": 80, "nodePort": 30000}]},
            id="a default in a named item",
        ),
        pytest.param({"args": ["serve"]}, {"args": ["serve"]}, id="equal items without names"),
    ],
)
def test_a_live_object_that_contains_the_manifest_is_left_alone(
    wanted: dict[str, Any], live: dict[str, Any]
) -> None:
    assert not drifts(wanted, live)


@pytest.mark.parametrize(
    ("wanted", "live"),
    [
        pytest.param({"replicas": 1}, {"replicas": 2}, id="another number"),
        pytest.param({"replicas": 1}, {}, id="missing"),
        pytest.param({"a": {"b": 1}}, {"a": None}, id="a map gone"),
        pytest.param({"a": {"b": 1}}, {"a": "text"}, id="a map turned text"),
        pytest.param({"cpu": "0.5"}, {"cpu": "0.6"}, id="another quantity"),
        pytest.param({"memory": "1G"}, {"memory": "1Gi"}, id="gigabytes are no gibibytes"),
        pytest.param({"a": ""}, {"a": "text"}, id="text where none was"),
        pytest.param({"env": ENV}, {"env": ENV[:1]}, id="a named item gone"),
        pytest.param({"env": ENV}, {"env": [ENV[0], {"name": "B", "value": "3"}]}, id="a named item changed"),
        pytest.param(
            {"env": [{"name": "A", "value": ""}]},
            {"env": [{"name": "A", "value": "x"}]},
            id="an empty value filled",
        ),
        pytest.param({"args": ["serve"]}, {"args": ["serve", "--debug"]}, id="one more argument"),
        pytest.param({"args": ["a", "b"]}, {"args": ["b", "a"]}, id="arguments in another order"),
        pytest.param({"from": [{"podSelector": {"a": "b"}}]}, {"from": []}, id="items without names gone"),
        pytest.param({"a": True}, {"a": False}, id="a switch turned"),
    ],
)
def test_a_live_object_that_says_otherwise_is_applied_again(
    wanted: dict[str, Any], live: dict[str, Any]
) -> None:
    assert drifts(wanted, live)


def test_a_label_that_somebody_removed_is_applied_again() -> None:
    manifest = with_hash(make_manifest(replicas=1))
    live = manifest | {"metadata": manifest["metadata"] | {"labels": {}}}

    assert has_drifted(manifest, live)


def test_a_field_that_the_manifest_no_longer_names_changes_its_hash() -> None:
    before, after = with_hash(make_manifest(replicas=1, paused=True)), with_hash(make_manifest(replicas=1))

    assert before["metadata"]["annotations"][SPEC_HASH] != after["metadata"]["annotations"][SPEC_HASH]
    assert has_drifted(after, before)


def test_a_hash_leaves_the_manifest_and_its_own_annotations_as_they_are() -> None:
    manifest = make_manifest() | {"metadata": {"name": "chat", "annotations": {"team": "a"}}}
    before = copy.deepcopy(manifest)

    hashed = with_hash(manifest)

    assert manifest == before
    assert hashed["metadata"]["annotations"].keys() == {"team", SPEC_HASH}


leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=6)
values = st.recursive(
    leaves,
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "key", "type", "a", "b"]), children, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), values, max_size=4))
def test_a_manifest_never_drifts_from_itself(spec: dict[str, Any]) -> None:
    manifest = with_hash(make_manifest(spec=spec))

    assert not has_drifted(manifest, copy.deepcopy(manifest))


def test_a_change_of_any_environment_variable_of_a_rendered_pod_is_seen() -> None:
    resource = make_resource(auth={"apiKeysSecret": {"name": "keys"}}, engine={"maxNumSeqs": 4})
    [deployment] = by_kind(render_resource(resource, make_observed(gpu_types=(make_gpu(),))), "Deployment")
    wanted = with_hash(deployment)

    for index in range(len(deployment["spec"]["template"]["spec"]["containers"][0]["env"])):
        live = copy.deepcopy(wanted)
        variables = live["spec"]["template"]["spec"]["containers"][0]["env"]
        variables[index]["value"] = f"{variables[index].get('value')}-edited"
        assert has_drifted(wanted, live)
