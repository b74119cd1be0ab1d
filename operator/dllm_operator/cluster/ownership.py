"""Whose an object is. Pure."""

from __future__ import annotations

from enum import Enum, auto

from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.resource import Resource


class Owner(Enum):
    RESOURCE = auto()
    NAMESAKE = auto()
    """A former resource of this name: the garbage collector is about to delete the object."""
    OTHER = auto()
    """Nobody, somebody else, or another resource."""


def owner(live: Manifest, resource: Resource) -> Owner:
    """By the uid of the controller's reference: labels and names can be anybody's."""
    ours = resource.owner_reference
    for reference in live["metadata"].get("ownerReferences", ()):
        if not reference.get("controller"):
            continue
        if reference["uid"] == resource.uid:
            return Owner.RESOURCE
        if (reference["kind"], reference["name"]) == (ours["kind"], ours["name"]):
            return Owner.NAMESAKE
    return Owner.OTHER


def is_owned(live: Manifest, resource: Resource) -> bool:
    return owner(live, resource) is Owner.RESOURCE
