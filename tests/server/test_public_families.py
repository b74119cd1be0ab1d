"""Models that people name: those of our pages are known, other diffusion families are refused by name."""

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
    "GSAI-ML/iLLaDA-8B-Base": "ILLaDAForCausalLM",
    "GSAI-ML/iLLaDA-8B-Instruct": "ILLaDAForCausalLM",
    "inclusionAI/LLaDA-MoE-7B-A1B-Base": "LLaDAMoEModelLM",
    "inclusionAI/LLaDA-MoE-7B-A1B-Instruct": "LLaDAMoEModelLM",
    "inclusionAI/LLaDA2.0-mini": "LLaDA2MoeModelLM",
    "inclusionAI/LLaDA2.0-flash": "LLaDA2MoeModelLM",
    "inclusionAI/LLaDA2.1-mini": "LLaDA2MoeModelLM",
    "inclusionAI/LLaDA2.1-flash": "LLaDA2MoeModelLM",
    "JetLM/SDAR-1.7B-Chat": "SDARForCausalLM",
    "JetLM/SDAR-4B-Chat": "SDARForCausalLM",
    "JetLM/SDAR-8B-Chat": "SDARForCausalLM",
    "JetLM/SDAR-30B-A3B-Chat": "SDARMoeForCausalLM",
    "Gen-Verse/TraDo-4B-Instruct": "SDARForCausalLM",
    "Gen-Verse/TraDo-8B-Instruct": "SDARForCausalLM",
    "Efficient-Large-Model/Fast_dLLM_v2_1.5B": "Fast_dLLM_QwenForCausalLM",
    "Efficient-Large-Model/Fast_dLLM_v2_7B": "Fast_dLLM_QwenForCausalLM",
}
_OWNERS = "GSAI-ML|Dream-org|inclusionAI|JetLM|Gen-Verse|apple|Efficient-Large-Model"
_HUB_ID = re.compile(rf"\b(?:{_OWNERS})/[\w.\-]*\w")


def test_every_model_that_the_pages_name_is_of_a_family_that_is_known() -> None:
    named = {match[0] for page in PAGES for match in _HUB_ID.finditer(page.read_text())}

    assert named
    assert {name for name in named if ARCHITECTURES.get(name) not in FAMILIES} == set()


@pytest.mark.parametrize("architecture", ["DiffusionGemmaForBlockDiffusion", "WeDLMForCausalLM"])
def test_another_diffusion_family_is_refused_by_its_name(architecture: str) -> None:
    config = {"architectures": [architecture], "model_type": "llada", "hidden_size": 64}

    with pytest.raises(ModelError, match=f"names {architecture}, supported are .*LLaDAModelLM"):
        find_family(config)
