from __future__ import annotations

import pytest
from dllm_operator.api.v1alpha1 import EmbeddedSource, HubSource, ModelSource, PvcSource


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("embedded", EmbeddedSource()),
        ("GSAI-ML/LLaDA-8B-Instruct", HubSource("GSAI-ML/LLaDA-8B-Instruct")),
        ("a/b", HubSource("a/b")),
        ("pvc://models/llada/8b", PvcSource("models", "llada/8b")),
        ("pvc://models/..hidden", PvcSource("models", "..hidden")),
        ("pvc://models", PvcSource("models", "")),
    ],
)
def test_a_source_is_embedded_a_hub_id_or_a_claims_directory(
    text: str, source: EmbeddedSource | HubSource | PvcSource
) -> None:
    assert ModelSource.parse(text) == source


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Embedded",
        "llada",
        "a/b/c",
        "/models/llada",
        "./llada",
        "a/b\n",
        "s3://bucket/llada",
        "pvc://",
        "pvc:///llada",
        "pvc://Models/llada",
        "pvc://models/",
        "pvc://models//etc",
        "pvc://models/../secrets",
        "pvc://models/./llada",
        "pvc://models/llada/..",
        "pvc://models/a b",
    ],
)
def test_anything_else_is_refused_by_name_with_the_ways_to_write_it(text: str) -> None:
    with pytest.raises(
        ValueError, match="write 'embedded', a hub id 'ORG/NAME', or 'pvc://CLAIM/PATH'"
    ) as error:
        ModelSource.parse(text)

    assert repr(text) in str(error.value)
