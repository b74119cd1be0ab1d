"""Node labels -> GPU types, one for each kind of GPU a pod can ask for.

Sources: GPU feature discovery's labels (``nvidia.com/gpu.product`` and its suffixes ``-SHARED`` and
``-MIG-...``), and those of MIG's mixed strategy (``nvidia.com/mig-1g.10gb.product``), where each profile is
a resource of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

GPU = "nvidia.com/gpu"
SHARED_GPU = "nvidia.com/gpu.shared"
PRODUCT = "nvidia.com/gpu.product"
MEMORY = "nvidia.com/gpu.memory"
SHARES = "nvidia.com/gpu.replicas"
SHARING = "nvidia.com/gpu.sharing-strategy"
MAX_POOL_NAME = 40

_MIXED_MIG = re.compile(r"nvidia\.com/mig-(?P<profile>[\w.+]+)\.product")


@dataclass(frozen=True, slots=True)
class Node:
    """What the operator keeps of a node: its labels, NVIDIA's resources, and the taints that keep new pods
    away."""

    name: str
    labels: Mapping[str, str]
    allocatable: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...] = ()

    @property
    def offer(self) -> tuple[Any, ...]:
        """What pools are made of, and who may come."""
        gpu_labels = {key: value for key, value in self.labels.items() if key.startswith("nvidia.com/")}
        return gpu_labels, self.allocatable, self.taints


@dataclass(frozen=True, slots=True)
class GpuType:
    """A kind of GPU as pods ask for it: select nodes by ``selector``, request ``resource``.

    ``memory_mib`` is one GPU's (a MIG slice's own); ``shares`` is how many pods take turns on it, with no
    memory of their own.
    """

    product: str
    selector: Mapping[str, str] = field(hash=False)
    resource: str = GPU
    memory_mib: int | None = None
    shares: int = 1

    @property
    def memory_mib_per_pod(self) -> int | None:
        """What one pod may take of one GPU; None where no label tells the memory."""
        return self.memory_mib // self.shares if self.memory_mib else None

    @property
    def memory_limit_mib(self) -> int | None:
        """What one of the pods that share a GPU may take; None where the device itself says."""
        return self.memory_mib_per_pod if self.shares > 1 else None


def normalise_product(text: str) -> str:
    """One spelling for a product: NVML's spaces, a missing vendor and letter case do not matter.

    >>> normalise_product("NVIDIA L40S"), normalise_product("l40s-shared")
    ('NVIDIA-L40S', 'NVIDIA-L40S-SHARED')
    """
    name = re.sub(r"[^A-Z0-9.+]+", "-", text.strip().upper()).strip("-")
    return name if name.startswith("NVIDIA-") else f"NVIDIA-{name}"


def pool_name(product: str) -> str:
    """A DNS label of at most 40 characters for a discovered product; a cut one stays distinct by its hash."""
    words = normalise_product(product).removeprefix("NVIDIA-").lower()
    name = re.sub(r"[^a-z0-9]+", "-", words).strip("-")
    if len(name) <= MAX_POOL_NAME:
        return name
    return f"{name[: MAX_POOL_NAME - 5].rstrip('-')}-{sha256(words.encode()).hexdigest()[:4]}"


def gpu_types(nodes: Iterable[Node]) -> tuple[GpuType, ...]:
    """The distinct GPU types of ``nodes``, by product."""
    found: dict[str, GpuType] = {}
    for node in sorted(nodes, key=lambda node: node.name):
        for gpu in _types_of(node):
            known = found.setdefault(gpu.product, gpu)
            room = gpu.memory_mib_per_pod
            if room and (known.memory_mib_per_pod is None or room < known.memory_mib_per_pod):
                found[gpu.product] = gpu  # nodes that disagree: what fits the smallest fits all
    return tuple(found[product] for product in sorted(found))


def find_type(product: str, types: Iterable[GpuType]) -> GpuType | None:
    """The type of that product in any spelling."""
    wanted = normalise_product(product)
    return next((gpu for gpu in types if normalise_product(gpu.product) == wanted), None)


def _types_of(node: Node) -> Iterable[GpuType]:
    labels = node.labels
    slices = [(key, match["profile"]) for key in sorted(labels) if (match := _MIXED_MIG.fullmatch(key))]
    for key, profile in slices:
        memory = _integer(labels.get(f"nvidia.com/mig-{profile}.memory"))
        yield GpuType(labels[key], {key: labels[key]}, f"nvidia.com/mig-{profile}", memory)
    product = labels.get(PRODUCT)
    if not product or (slices and node.allocatable.get(GPU, "0") == "0"):
        return
    is_shared = product.endswith("-SHARED") or labels.get(SHARING) == "time-slicing"
    yield GpuType(
        product=product,
        selector={PRODUCT: product},
        resource=SHARED_GPU if SHARED_GPU in node.allocatable else GPU,
        memory_mib=_integer(labels.get(MEMORY)),
        shares=max(1, _integer(labels.get(SHARES)) or 1) if is_shared else 1,
    )


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and int(text) > 0 else None
