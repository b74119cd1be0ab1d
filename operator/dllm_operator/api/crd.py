"""The CustomResourceDefinition, generated from the types: ``python -m dllm_operator.api.crd`` writes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from dllm_operator.api.cel import Rule, validations
from dllm_operator.api.structural import Schema, structural_schema
from dllm_operator.api.v1alpha1 import (
    GROUP,
    KIND,
    PLURAL,
    SHORT_NAME,
    SINGULAR,
    VERSION,
    DLLMDeploymentSpec,
    DLLMDeploymentStatus,
)

LONGEST_NAME = 40
TARGETS = (Path("crds") / f"{GROUP}_{PLURAL}.yaml", Path("charts/dllm-operator/files/crd.yaml"))

_NAME_RULES = validations(
    Rule(
        rule=f"size(self.metadata.name) <= {LONGEST_NAME}",
        message=f"metadata.name has more than {LONGEST_NAME} characters, and children are named NAME-POOL: "
        "choose a shorter name",
        naming="metadata.name '{self.metadata.name}' has {size(self.metadata.name)} characters, more than "
        f"{LONGEST_NAME}, and children are named NAME-POOL: choose a shorter name",
    ),
    Rule(
        rule="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        message="metadata.name is not a Service's name: use a-z, 0-9 and '-', beginning with a letter",
        naming="metadata.name '{self.metadata.name}' is not a Service's name: use a-z, 0-9 and '-', "
        "beginning with a letter",
    ),
)


def crd() -> dict[str, Any]:
    """The manifest (apiextensions.k8s.io/v1)."""
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": _printer_columns(),
        "schema": {"openAPIV3Schema": _root()},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
    }
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": SINGULAR,
        "shortNames": [SHORT_NAME],
        "categories": ["all", SHORT_NAME],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def dump_crd() -> str:
    """The manifest as YAML, the same for the same types."""
    return yaml.safe_dump(crd(), sort_keys=False, width=110, allow_unicode=True)


def _root() -> Schema:
    return {
        "type": "object",
        "description": "A diffusion language model served by pods with an OpenAI-compatible API.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{KIND}."},
            "metadata": {"type": "object"},
            "spec": {**structural_schema(DLLMDeploymentSpec), "description": "What should run."},
            "status": structural_schema(DLLMDeploymentStatus),
        },
        **_NAME_RULES,
    }


def _printer_columns() -> list[dict[str, Any]]:
    return [
        _column("Model", ".spec.model.source", "Where the model comes from."),
        _column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the API answers."),
        _column("Replicas", ".status.replicas", "Pods of all pools.", kind="integer"),
        _column("GPUs", ".status.gpus", "GPUs that the pods hold.", kind="integer"),
        _column("Tuning", ".spec.tuning.mode", "What the tuner may do."),
        _column(
            "Rollout",
            '.status.conditions[?(@.type=="Progressing")].reason',
            "Whether a rollout goes on, has settled, or what stops it.",
        ),
        _column("Age", ".metadata.creationTimestamp", "Time since it was made.", kind="date"),
        _column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why Ready is so.", priority=1),
        _column("Tuned", ".status.tuned", "Token budget of each pool.", priority=1),
        _column(
            "Converged",
            '.status.conditions[?(@.type=="TuningConverged")].reason',
            "Whether the tuner wants more changes.",
            priority=1,
        ),
        _column("URL", ".status.url", "Address of the API inside the cluster.", priority=1),
    ]


def _column(
    name: str, path: str, description: str, *, kind: str = "string", priority: int = 0
) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return column | ({"priority": priority} if priority else {})


def main(root: Path) -> None:
    """Write both copies below the repository's ``root``."""
    for target in TARGETS:
        path = root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dump_crd())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd())
