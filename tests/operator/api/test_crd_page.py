from pathlib import Path

from dllm_operator.api.crd import crd
from dllm_operator.api.reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "crd.md"


def test_the_page_of_the_resource_is_what_the_types_say() -> None:
    assert PAGE.read_text() == reference(), "run: python -m dllm_operator.api.reference > docs/crd.md"


def test_the_page_has_every_block_and_every_field_of_the_engine() -> None:
    spec = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]

    page = reference()

    for name, field in spec.items():
        assert f"### spec {name}\n" in page or f"| `{name}` |" in page, name
        for inner in field.get("properties", {}):
            assert f"`{inner}`" in page, f"{name}.{inner}"
