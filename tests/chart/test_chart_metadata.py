"""What a catalogue shows of the chart, and its package."""

from __future__ import annotations

import tarfile
from pathlib import Path

import yaml

from tests.chart.conftest import CHART, CRD_FILE, Tools

ROOT = CHART.parents[1]
METADATA = yaml.safe_load((CHART / "Chart.yaml").read_text())
ANNOTATIONS = METADATA["annotations"]


def test_the_annotations_tell_of_the_definition_there_is() -> None:
    crd = yaml.safe_load(CRD_FILE.read_text())

    (told,) = yaml.safe_load(ANNOTATIONS["artifacthub.io/crds"])

    assert told["kind"] == crd["spec"]["names"]["kind"]
    assert told["name"] == crd["metadata"]["name"]
    assert told["version"] in [version["name"] for version in crd["spec"]["versions"]]


def test_the_annotated_example_is_the_smallest_of_the_examples() -> None:
    example = yaml.safe_load((ROOT / "examples/embedded-cpu.yaml").read_text())

    assert yaml.safe_load(ANNOTATIONS["artifacthub.io/crdsExamples"]) == [example]


def test_helm_packages_the_whole_chart(tools: Tools, tmp_path: Path) -> None:
    tools.check("helm", "package", str(CHART), "--destination", str(tmp_path))

    with tarfile.open(tmp_path / f"{METADATA['name']}-{METADATA['version']}.tgz") as package:
        packed = {Path(name).relative_to(CHART.name) for name in package.getnames()}
    assert packed == {path.relative_to(CHART) for path in CHART.rglob("*") if path.is_file()}
