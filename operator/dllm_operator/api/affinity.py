"""Parts of the Kubernetes API that select by labels: selectors and affinity.

Typed throughout, since an API server keeps whatever it is given of a free-form field, a thousand levels of
nesting included, which no reader of Python's takes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from dllm_operator.api.base import ApiModel
from dllm_operator.api.kubernetes_types import LabelValue

MOST = 32
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=317)]
NodeValue = Annotated[str, StringConstraints(max_length=63)]
Namespace = Annotated[str, StringConstraints(min_length=1, max_length=63)]


class LabelOperator(StrEnum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class NodeOperator(StrEnum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GREATER = "Gt"
    LESS = "Lt"


class LabelRequirement(ApiModel):
    """A statement about a label."""

    key: LabelKey = Field(description="Key of the label.")
    operator: LabelOperator = Field(description="How the label is compared with the values.")
    values: tuple[LabelValue, ...] | None = Field(
        None, max_length=MOST, description="Values, with In and NotIn."
    )


class LabelSelector(ApiModel):
    """Objects by their labels; all of them if empty."""

    match_labels: dict[str, LabelValue] | None = Field(
        None, max_length=MOST, description="Labels that all must be there."
    )
    match_expressions: tuple[LabelRequirement, ...] | None = Field(
        None, max_length=MOST, description="Statements that all must hold."
    )


class NodeRequirement(ApiModel):
    """A statement about a label or a field of a node."""

    key: LabelKey = Field(description="Key of the label, or name of the field.")
    operator: NodeOperator = Field(description="How it is compared with the values.")
    values: tuple[NodeValue, ...] | None = Field(
        None, max_length=MOST, description="Values; one with Gt and Lt, none with Exists and DoesNotExist."
    )


class NodeTerm(ApiModel):
    """Nodes for which all statements hold."""

    match_expressions: tuple[NodeRequirement, ...] | None = Field(
        None, max_length=MOST, description="Statements about labels."
    )
    match_fields: tuple[NodeRequirement, ...] | None = Field(
        None, max_length=MOST, description="Statements about fields."
    )


class RequiredNodes(ApiModel):
    """Nodes that any of the terms selects."""

    node_selector_terms: tuple[NodeTerm, ...] = Field(
        min_length=1, max_length=MOST, description="Terms of which one must hold."
    )


class PreferredNodes(ApiModel):
    """A term with its weight."""

    weight: int = Field(ge=1, le=100, description="How much it counts.")
    preference: NodeTerm = Field(description="Nodes that are preferred.")


class NodeAffinity(ApiModel):
    """Nodes that pods go to."""

    required_during_scheduling_ignored_during_execution: RequiredNodes | None = Field(
        None, description="Nodes that pods must go to."
    )
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredNodes, ...] | None = Field(
        None, max_length=MOST, description="Nodes that pods go to first."
    )


class PodTerm(ApiModel):
    """Pods, and what of the topology is to be shared with them."""

    label_selector: LabelSelector | None = Field(None, description="Labels of the pods.")
    namespaces: tuple[Namespace, ...] | None = Field(
        None, max_length=MOST, description="Namespaces of the pods; the own one if both are unset."
    )
    namespace_selector: LabelSelector | None = Field(None, description="Labels of the pods' namespaces.")
    match_label_keys: tuple[LabelKey, ...] | None = Field(
        None, max_length=MOST, description="Labels that the pods have in common with the new one."
    )
    mismatch_label_keys: tuple[LabelKey, ...] | None = Field(
        None, max_length=MOST, description="Labels in which the pods differ from the new one."
    )
    topology_key: LabelKey = Field(description="Label of nodes, the same on those that count as one place.")


class PreferredPods(ApiModel):
    """A term with its weight."""

    weight: int = Field(ge=1, le=100, description="How much it counts.")
    pod_affinity_term: PodTerm = Field(description="Pods that it is about.")


class PodAffinity(ApiModel):
    """Pods that pods go to, or keep away from."""

    required_during_scheduling_ignored_during_execution: tuple[PodTerm, ...] | None = Field(
        None, max_length=MOST, description="What must hold."
    )
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredPods, ...] | None = Field(
        None, max_length=MOST, description="What is preferred."
    )


class Affinity(ApiModel):
    """Where pods go, as in a pod's spec."""

    node_affinity: NodeAffinity | None = Field(None, description="Nodes that the pods go to.")
    pod_affinity: PodAffinity | None = Field(None, description="Pods that the pods go to.")
    pod_anti_affinity: PodAffinity | None = Field(None, description="Pods that the pods keep away from.")
