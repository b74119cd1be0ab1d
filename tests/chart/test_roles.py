"""The tables of docs/security.md against the API server's authorizer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.cluster.cluster import Cluster

if TYPE_CHECKING:
    from conftest import Tools

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "security.md"
RELEASE = "dllm-operator"
AGGREGATED_SECONDS = 60.0  # in which view, edit and admin take up the chart's roles
ROLES_OF = {
    "view": ("view",),
    "edit": ("edit",),
    "admin": ("admin",),
    "author": (f"{{namespace}}:{RELEASE}:view", f"{{namespace}}:{RELEASE}:edit"),
}


def table(first: str) -> list[dict[str, str]]:
    """Rows of the page's table whose first column has that head, by head."""
    lines = PAGE.read_text().splitlines()
    [start] = [number for number, line in enumerate(lines) if line.startswith(f"| {first} |")]
    heads = cells(lines[start])
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append(dict(zip(heads, cells(line), strict=True)))
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def answers(tools: Tools, questions: list[tuple[str, str, str]]) -> list[str]:
    """Yes or no for each (user, namespace, ``VERB RESOURCE``), as ``kubectl auth can-i`` says it."""
    reviews = []
    for user, namespace, request in questions:
        verb, _, target = request.strip("`").partition(" ")
        name, _, group = target.partition(".")
        resource, _, subresource = name.partition("/")
        attributes = {
            "namespace": namespace,
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
        }
        spec = {"user": user, "groups": ["system:authenticated"], "resourceAttributes": attributes}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}}
        reviews.append(body | {"spec": spec})
    said = tools.check(
        "kubectl",
        "create",
        "-f",
        "-",
        "--output=jsonpath={.status.allowed}{'\\n'}",
        stdin=yaml.safe_dump_all(reviews),
    )
    return ["yes" if word == "true" else "no" for word in said.split()]


@pytest.fixture(scope="module")
def installed(cluster: Cluster, tools: Tools) -> Iterator[str]:
    """A namespace with the chart, and a user of each column bound to its roles."""
    with cluster.temporary_namespace("roles") as namespace:
        chart = str(ROOT / "charts" / "dllm-operator")
        options = ("--set", "operator.replicas=0", "--set", "crds.enabled=false")
        try:
            tools.check("helm", "install", "dllm", chart, "--namespace", namespace, *options)
            tools.check("kubectl", "create", "-f", "-", stdin=yaml.safe_dump_all(bindings(namespace)))
            await_roles(tools, namespace)
            yield namespace
        finally:
            tools.run("helm", "uninstall", "dllm", "--namespace", namespace, "--ignore-not-found")


def bindings(namespace: str) -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"{column}-{number}", "namespace": namespace},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": role.format(namespace=namespace),
            },
            "subjects": [{"kind": "User", "name": user(column, namespace)}],
        }
        for column, roles in ROLES_OF.items()
        for number, role in enumerate(roles)
    ]


def user(column: str, namespace: str) -> str:
    if column == "operator":
        return f"system:serviceaccount:{namespace}:{RELEASE}"
    return f"{column}-of-{namespace}"


def await_roles(tools: Tools, namespace: str) -> None:
    until = time.monotonic() + AGGREGATED_SECONDS
    sample = "`get dllmdeployments.serving.dllm.dev`"
    questions = [(user(column, namespace), namespace, sample) for column in ("view", "edit", "admin")]
    while answers(tools, questions) != ["yes"] * 3:
        assert time.monotonic() < until, "view, edit and admin do not take up the chart's roles"
        time.sleep(0.5)


def test_who_may_do_what_is_as_the_page_says(tools: Tools, installed: str) -> None:
    rows = table("may")
    asked = [(row["may"], column, said) for row in rows for column, said in row.items() if column != "may"]

    questions = [
        (user(column, installed), "default" if column == "operator" else installed, request)
        for request, column, _ in asked
    ]

    assert {column for _, column, _ in asked} == {*ROLES_OF, "operator"}
    found = zip(asked, answers(tools, questions), strict=True)
    assert [(*cell, answer) for cell, answer in found if cell[2] != answer] == []


def test_the_page_names_every_role_of_the_chart(tools: Tools) -> None:
    named = {row["role"].replace("`", "") for row in table("role")}

    rendered = {
        f"{one['kind']} {one['metadata']['name']}".replace("dllm-system:", "NAMESPACE:").replace(
            RELEASE, "RELEASE"
        )
        for one in tools.render({})
        if one["kind"] in ("Role", "ClusterRole")
    }

    assert named == rendered
