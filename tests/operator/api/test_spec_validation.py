from __future__ import annotations

from typing import Any

import pytest
from dllm_operator.api.v1alpha1 import DLLMDeploymentSpec, check_spec


def make_spec(**fields: Any) -> DLLMDeploymentSpec:
    return DLLMDeploymentSpec.model_validate({"model": {"source": "embedded"}} | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"engine": {"confidence": "entropy", "unmaskingStrategy": "quota", "unmaskingValue": 2}},
        {
            "engine": {"confidence": "entropy"},
            "gpuPools": [{"name": "a", "engine": {"unmaskingStrategy": "entropy_bound"}}],
        },
        {"engine": {"maxNumSeqs": 8}, "tuning": {"bounds": {"maxNumSeqs": {"min": 8, "max": 8}}}},
        {"replicas": 3, "gpuPools": [{"name": "a", "replicas": 1}, {"name": "b"}]},
        {"replicas": 1, "gpuPools": [{"name": "a", "replicas": 1}]},
        {"replicas": 0},
    ],
)
def test_a_spec_that_makes_sense_has_no_problems(fields: dict[str, Any]) -> None:
    assert check_spec(make_spec(**fields)) == []


def test_a_confidence_that_the_strategy_cannot_use_is_named_with_its_remedy() -> None:
    problems = check_spec(make_spec(engine={"confidence": "entropy"}))

    assert problems == [
        "spec.engine.confidence: confidence 'entropy' is not in [0, 1], which strategy 'threshold' needs: "
        "use strategy 'entropy_bound' or 'quota', or confidence 'probability' or 'margin'"
    ]


def test_a_value_that_the_strategy_cannot_use_is_named_with_its_field() -> None:
    problems = check_spec(make_spec(engine={"unmaskingStrategy": "quota", "unmaskingValue": 1.5}))

    assert problems == [
        "spec.engine.unmaskingValue: value 1.5 is not a whole number of tokens a step: quota needs 1, 2, ..."
    ]


def test_each_pools_overrides_are_checked_over_the_common_settings() -> None:
    spec = make_spec(
        engine={"unmaskingValue": 2, "unmaskingStrategy": "factor"},
        gpuPools=[{"name": "a100"}, {"name": "l4", "engine": {"unmaskingStrategy": "threshold"}}],
    )

    assert check_spec(spec) == [
        "spec.gpuPools[l4].engine.unmaskingValue: value 2.0 exceeds 1: a threshold is a confidence in (0, 1]"
    ]


def test_a_setting_that_the_server_refuses_is_named_as_the_manifest_spells_it() -> None:
    spec = make_spec().model_copy(update={"engine": make_spec().engine.model_copy(update={"page_size": 0})})

    assert check_spec(spec) == ["spec.engine.pageSize: Input should be greater than or equal to 1"]


@pytest.mark.parametrize(
    ("engine", "bounds", "problem"),
    [
        (
            {"maxNumSeqs": 64},
            {"maxNumSeqs": {"max": 32}},
            "spec.engine.maxNumSeqs: 64 is above max 32 of spec.tuning.bounds.maxNumSeqs: change one of them",
        ),
        (
            {"refreshShare": 0.1},
            {"refreshShare": {"min": 0.25}},
            "spec.engine.refreshShare: 0.1 is below min 0.25 of spec.tuning.bounds.refreshShare: "
            "change one of them",
        ),
    ],
)
def test_a_setting_outside_the_tuners_bounds_is_named_with_both_values(
    engine: dict[str, Any], bounds: dict[str, Any], problem: str
) -> None:
    assert check_spec(make_spec(engine=engine, tuning={"bounds": bounds})) == [problem]


def test_fewer_replicas_than_the_pools_fix_are_refused() -> None:
    spec = make_spec(replicas=2, gpuPools=[{"name": "a", "replicas": 3}, {"name": "b"}])

    assert check_spec(spec) == [
        "spec.replicas: 2 is below the 3 that gpuPools[].replicas fix: raise it, or lower those"
    ]


def test_replicas_that_no_pool_takes_are_refused() -> None:
    spec = make_spec(replicas=5, gpuPools=[{"name": "a", "replicas": 3}])

    assert check_spec(spec) == [
        "spec.replicas: 5 is above the 3 that gpuPools[].replicas fix, and no pool is left for the rest: "
        "remove replicas, or one of those"
    ]
