"""Where pods may go: what they ask for, which taints they bear, what one leaves to another. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from dllm_operator.cluster.observe import Manifest, condition_of
from dllm_operator.cluster.pools import Node

PLACEMENT = ("nodeSelector", "affinity", "tolerations")
"""Fields of a pod's spec that say which nodes it may go to."""
_MOST = Decimal(2**63 - 1)  # of any quantity, as Kubernetes has it


def is_leaving(pod: Manifest) -> bool:
    """Told to go; it holds what it has until it is gone."""
    return "deletionTimestamp" in pod["metadata"]


def node_of(pod: Manifest) -> str | None:
    """None before the scheduler has found one."""
    name: str | None = pod.get("spec", {}).get("nodeName")
    return name


def has_place(pod: Manifest) -> bool:
    """Whether it holds what it asks for on a node: one that has ended for good gives it back."""
    return node_of(pod) is not None and pod.get("status", {}).get("phase") not in ("Failed", "Succeeded")


def why_unplaced(pod: Manifest) -> str | None:
    """The scheduler's words where it has looked for a node and found none."""
    condition = condition_of(pod.get("status", {}), "PodScheduled")
    if condition is None or condition["status"] != "False" or condition.get("reason") != "Unschedulable":
        return None
    return condition.get("message") or "Unschedulable"


def requests_of(pod: Manifest) -> dict[str, Decimal]:
    """What the scheduler reserves for it, by resource name; limits where a request is not said."""
    total: dict[str, Decimal] = {}
    for container in pod.get("spec", {}).get("containers", ()):
        resources = container.get("resources") or {}
        wanted = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for name, quantity in wanted.items():
            total[name] = total.get(name, Decimal()) + _amount(quantity)
    return total


def could_replace(new: Manifest, old: Manifest, node: Node | None) -> bool:
    """Whether ``new`` can go where ``old`` is once that is gone: it follows the same rules, asks for no more,
    and bears the taints that the node has now. None is a node that is gone."""
    if node is None or _rules(new) != _rules(old):
        return False
    left = requests_of(old)
    fits = all(amount <= left.get(name, 0) for name, amount in requests_of(new).items())
    tolerations = new.get("spec", {}).get("tolerations") or ()
    return fits and bears(tolerations, node)


def bears(tolerations: Iterable[Mapping[str, Any]], node: Node) -> bool:
    """Whether a pod with these tolerations may come to the node."""
    known = tuple(tolerations)
    return all(any(_tolerates(each, taint) for each in known) for taint in node.taints)


def free_places(
    selector: Mapping[str, str],
    tolerations: Sequence[Mapping[str, Any]],
    resource: str,
    amount: int,
    nodes: Iterable[Node],
    pods: Iterable[Manifest],
) -> int:
    """Pods that ask for ``amount`` of a device and could come beside ``pods``. Of pods that are not among
    those nothing is known, so it may be fewer, never more."""
    held: Counter[str] = Counter()
    for pod in filter(has_place, pods):
        held[node_of(pod) or ""] += int(requests_of(pod).get(resource, 0))
    open_nodes = [
        node for node in nodes if selector.items() <= node.labels.items() and bears(tolerations, node)
    ]
    return sum(max(_count(node, resource) - held[node.name], 0) // amount for node in open_nodes)


def _count(node: Node, resource: str) -> int:
    """Of a device; a thousand are written ``1k``."""
    return int(_amount(node.allocatable.get(resource, "0")))


def _amount(quantity: str | int) -> Decimal:
    """Bounded: as an integer, 1e1000000 takes minutes, and anybody's pod may ask for it."""
    amount: Decimal = parse_quantity(quantity)  # type: ignore[no-untyped-call]
    return min(amount, _MOST)


def _rules(pod: Manifest) -> tuple[Any, ...]:
    """Without affinity to pods, which are where the old ones are."""
    spec = pod.get("spec", {})
    affinity = {name: rule for name, rule in (spec.get("affinity") or {}).items() if name != "podAffinity"}
    return spec.get("nodeSelector") or {}, affinity, _own(spec.get("tolerations") or ())


def _own(tolerations: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """In an order of their own: they are a set."""
    return sorted(tolerations, key=lambda each: sorted(map(str, each.items())))


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, str]) -> bool:
    key, effect = toleration.get("key"), toleration.get("effect")
    if effect and effect != taint["effect"]:
        return False
    if toleration.get("operator") == "Exists":
        return not key or key == taint["key"]
    return key == taint["key"] and toleration.get("value", "") == taint.get("value", "")
