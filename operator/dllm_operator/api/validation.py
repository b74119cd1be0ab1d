"""What neither the schema nor CEL can say about a spec: settings that only make sense together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dllm_server.settings import EngineSettings, UnmaskingSettings
from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from dllm_operator.api.deployment import DLLMDeploymentSpec
from dllm_operator.api.networking import FrontDoor
from dllm_operator.api.source import ModelSource
from dllm_operator.api.tuning import TuningBounds


def check_spec(spec: DLLMDeploymentSpec) -> list[str]:
    """One sentence a problem, each naming the field, its value and the remedy; empty for a valid spec."""
    common = spec.engine.settings()
    engines = {
        f"spec.gpuPools[{pool.name}].engine": common | pool.engine.settings() for pool in spec.gpu_pools
    } or {"spec.engine": common}
    problems: dict[str, None] = dict.fromkeys(
        _check_source(spec)
        + _check_replicas(spec)
        + _check_claims(spec)
        + _check_environment(spec)
        + _check_front_door(spec)
        + _check_autoscaling(spec)
    )
    for path, settings in engines.items():
        problems |= dict.fromkeys(f"{path}{problem}" for problem in _check_engine(settings))
        problems |= dict.fromkeys(
            f"{path}{problem}" for problem in _check_bounds(settings, spec.tuning.bounds)
        )
    return list(problems)


def _check_engine(settings: Mapping[str, Any]) -> list[str]:
    try:
        EngineSettings.model_validate(settings)
    except ValidationError as error:
        return [_describe(detail, settings) for detail in error.errors(include_url=False)]
    return []


def _describe(detail: ErrorDetails, settings: Mapping[str, Any]) -> str:
    """``.field: reason``; an error about fields together names the one to change."""
    path = ".".join(to_camel(str(part)) for part in detail["loc"]) or _field_to_change(settings)
    return f".{path}: {detail['msg'].removeprefix('Value error, ')}"


def _field_to_change(settings: Mapping[str, Any]) -> str:
    """The value where strategy and value disagree, else the confidence, which has to fit both."""
    given = {name: settings.get(f"unmasking_{name}") for name in UnmaskingSettings.model_fields}
    try:
        UnmaskingSettings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError:
        return "unmaskingValue"
    return "confidence"


def _check_bounds(settings: Mapping[str, Any], bounds: TuningBounds) -> list[str]:
    problems = []
    for name in TuningBounds.model_fields:
        value, limits = settings.get(name), getattr(bounds, name)
        below = value is not None and limits.min is not None and value < limits.min
        above = value is not None and limits.max is not None and value > limits.max
        if below or above:
            field, limit = to_camel(name), f"below min {limits.min}" if below else f"above max {limits.max}"
            problems.append(f".{field}: {value} is {limit} of spec.tuning.bounds.{field}: change one of them")
    return problems


def _check_source(spec: DLLMDeploymentSpec) -> list[str]:
    """A rule of the CRD as well, which an object from before it has not passed."""
    try:
        ModelSource.parse(spec.model.source)
    except ValueError as error:
        return [f"spec.model.source: {error}"]
    return []


def _check_claims(spec: DLLMDeploymentSpec) -> list[str]:
    known = {claim.name for claim in spec.pod_template.resource_claims}
    named = {"spec.podTemplate.resources": spec.pod_template.resources} | {
        f"spec.gpuPools[{pool.name}].resources": pool.resources for pool in spec.gpu_pools
    }
    return [
        f"{path}.claims[{claim.name}]: podTemplate.resourceClaims has no such claim: add it, or remove this"
        for path, resources in named.items()
        for claim in (resources.claims if resources is not None else None) or ()
        if claim.name not in known
    ]


def _check_environment(spec: DLLMDeploymentSpec) -> list[str]:
    variables = spec.pod_template.env
    return [f"spec.podTemplate.env[{v.name}]: {v.problem}" for v in variables if v.problem is not None]


def _check_front_door(spec: DLLMDeploymentSpec) -> list[str]:
    """One way to deal out requests; the queue is not where a scaler looks for it."""
    path, problems = "spec.networking.frontDoor", []
    is_scaled_here = spec.autoscaling is not None and spec.autoscaling.is_builtin
    if is_scaled_here and spec.networking.front_door is FrontDoor.OFF:
        return [f"{path}: Off leaves autoscaling by Builtin without a queue to look at: remove one of them"]
    if spec.networking.front_door in (None, FrontDoor.OFF) and not is_scaled_here:
        return []
    problems += [
        f"{path}: a Deployment of it is named like pool {pool.name}'s: give the pool another name"
        for pool in spec.gpu_pools
        if pool.name in ("front-door", "front-door-1", "front-door-2")
    ]
    if spec.networking.front_door is not FrontDoor.ON and not is_scaled_here:
        return problems
    if spec.networking.inference_pool is not None:
        problems.append(
            f"{path}: it and inferencePool both deal out requests: set it to Off, or remove inferencePool"
        )
    if spec.autoscaling is not None and spec.autoscaling.counts_waiting:
        problems.append(
            f"{path}: On keeps requests from waiting in the pods, which is what autoscaling.metric counts: "
            "choose another metric, or set frontDoor to Off"
        )
    return problems


def _check_autoscaling(spec: DLLMDeploymentSpec) -> list[str]:
    """Rules of the CRD as well."""
    scaling = spec.autoscaling
    if scaling is None or scaling.is_builtin:
        return []
    given = {"metric": scaling.metric, "prometheusAddress": scaling.prometheus_address}
    return [
        f"spec.autoscaling.{name}: provider KEDA needs it: set it, or provider to Builtin"
        for name, value in given.items()
        if value is None
    ]


def _check_replicas(spec: DLLMDeploymentSpec) -> list[str]:
    if spec.replicas is None or not spec.gpu_pools:
        return []
    fixed = [pool.replicas for pool in spec.gpu_pools if pool.replicas is not None]
    if spec.replicas < sum(fixed):
        return [
            f"spec.replicas: {spec.replicas} is below the {sum(fixed)} that gpuPools[].replicas fix: "
            "raise it, or lower those"
        ]
    if spec.replicas > sum(fixed) and len(fixed) == len(spec.gpu_pools):
        return [
            f"spec.replicas: {spec.replicas} is above the {sum(fixed)} that gpuPools[].replicas fix, and "
            "no pool is left for the rest: remove replicas, or one of those"
        ]
    return []
