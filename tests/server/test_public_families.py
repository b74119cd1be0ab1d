"""Models that people name: those of our pages are served, other diffusion families are refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dllm_server.models.files import ModelError
from dllm_server.models.registry import FAMILIES, find_family

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.yaml")]
ARCHITECTURES = {
    "GSAI-ML/LLaDA-8B-Base": "LLaDAModelLM",
    "GSAI-ML/LLaDA-8B-Instruct": "LLaDAModelLM",
    "GSAI-ML/LLaDA-1.5": "LLaDAModelLM",
    "Dream-org/Dream-v0-Base-7B": "DreamModel",
    "Dream-org/Dream-v0-Instruct-7B": "DreamModel",
}
_HUB_ID = re.compile(r"\b(?:GSAI-ML|Dream-org|inclusionAI|JetLM|Gen-Verse|apple)/[\w.\-]*\w")


def test_every_model_that_the_pages_name_is_of_a_family_that_is_served() -> None:
    named = {match[0] for page in PAGES for match in _HUB_ID.finditer(page.read_text())}

    assert named
    assert {name for name in named if ARCHITECTURES.get(name) not in FAMILIES} == set()


@pytest.mark.parametrize(
    "architecture",
    [
        "DiffusionGemmaForBlockDiffusion",
        "Fast_dLLM_QwenForCausalLM",
        "LLaDA2MoeModelLM",
        "LLaDAMoEModelLM",
        "SDARForCausalLM",
        "SDARMoeForCausalLM",
    ],
)
def test_another_diffusion_family_is_refused_by_its_name(architecture: str) -> None:
    config = {"architectures": [architecture], "model_type": "llada", "hidden_size": 64}

    with pytest.raises(ModelError, match=f"names {architecture}, supported are .*LLaDAModelLM"):
        find_family(config)
