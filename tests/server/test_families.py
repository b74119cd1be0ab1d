"""What each family makes of its config.json, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from dllm_kernels.routing import RoutingRule, Score
from dllm_server.models.config import BlockCausal, Decoding, ModelConfig
from dllm_server.models.files import ModelError, read_json_if_there
from dllm_server.models.registry import find_family, open_checkpoint
from dllm_server.models.special_tokens import read_token_names
from dllm_server.settings import Strategy
from engines import FIXTURES

THRESHOLD = Strategy.THRESHOLD


def parse(
    fixture: str, changes: Mapping[str, Any] | None = None, generation: Mapping[str, Any] | None = None
) -> ModelConfig:
    """The fixture's definition with fields of config.json replaced, or removed where None, and fields added
    to generation_config.json."""
    directory = FIXTURES / fixture
    values = json.loads((directory / "config.json").read_text()) | dict(changes or {})
    values = {name: value for name, value in values.items() if value is not None}
    written = read_json_if_there(directory / "generation_config.json") | dict(generation or {})
    return find_family(values, written, read_token_names(directory))[1]


@pytest.mark.parametrize(
    ("fixture", "expected"),
    [
        ("llada_mha", None),
        ("llada_moe", None),
        ("illada", None),
        ("sdar", BlockCausal(4, Decoding(THRESHOLD, 0.85))),
        ("sdar_b8", BlockCausal(8, Decoding(THRESHOLD, 0.85))),
        ("sdar_moe", BlockCausal(4, Decoding(THRESHOLD, 0.85))),
        ("llada2", BlockCausal(32, Decoding(THRESHOLD, 0.95))),
        ("fast_dllm_v2", BlockCausal(32, Decoding(THRESHOLD, 0.9), sub_block_length=8)),
    ],
)
def test_a_family_has_its_attention_and_decoding(fixture: str, expected: BlockCausal | None) -> None:
    assert parse(fixture).block_causal == expected


@pytest.mark.parametrize(
    ("fixture", "changes", "generation", "expected"),
    [
        ("sdar", {"block_size": None}, {}, BlockCausal(4, Decoding(THRESHOLD, 0.85))),
        ("sdar", {"block_size": None}, {"block_size": 16}, BlockCausal(16, Decoding(THRESHOLD, 0.85))),
        ("sdar", {"block_size": 8}, {"block_size": 16}, BlockCausal(8, Decoding(THRESHOLD, 0.85))),
        ("sdar", {}, {"confidence_threshold": 0.7}, BlockCausal(4, Decoding(THRESHOLD, 0.7))),
        ("sdar", {"confidence_threshold": 0}, {}, BlockCausal(4, Decoding(THRESHOLD, 0.0))),
        ("llada2", {"threshold": 0.5}, {"threshold": 0.7}, BlockCausal(32, Decoding(THRESHOLD, 0.5))),
        ("llada2", {}, {"editing_threshold": 0}, BlockCausal(32, Decoding(THRESHOLD, 0.95, 0.0, 16))),
        (
            "llada2",
            {"editing_threshold": 0.9, "max_post_steps": 0},
            {"max_post_steps": 4},
            BlockCausal(32, Decoding(THRESHOLD, 0.95, 0.9, 0)),
        ),
        (
            "fast_dllm_v2",
            {"bd_size": 16, "small_block_size": 4},
            {"threshold": 1.0},
            BlockCausal(16, Decoding(THRESHOLD, 1.0), sub_block_length=4),
        ),
    ],
)
def test_files_say_more_than_the_family(
    fixture: str, changes: dict[str, Any], generation: dict[str, Any], expected: BlockCausal
) -> None:
    assert parse(fixture, changes, generation).block_causal == expected


@pytest.mark.parametrize(
    ("fixture", "eos"),
    [
        ("sdar", (376, 378)),  # both files
        ("fast_dllm_v2", (378,)),  # config.json alone
        ("llada2", (240,)),  # the tokenizer alone; not the end of a turn
        ("llada_moe", (240,)),
        ("illada", (300,)),
    ],
)
def test_a_family_ends_at_its_eos(fixture: str, eos: tuple[int, ...]) -> None:
    assert parse(fixture).eos_token_ids == eos


@pytest.mark.parametrize(
    ("fixture", "changes", "layers"),
    [
        ("sdar", {}, ()),
        ("sdar_moe", {}, (0, 1, 2)),
        ("sdar_moe", {"decoder_sparse_step": 2}, (1,)),
        ("sdar_moe", {"mlp_only_layers": [0, 1]}, (2,)),
        ("sdar_moe", {"num_experts": 0}, ()),
        ("llada2", {}, (1, 2)),
        ("llada2", {"first_k_dense_replace": 0}, (0, 1, 2)),
        ("llada2", {"first_k_dense_replace": 3}, ()),
        ("llada_moe", {}, (0, 1, 2)),
        ("llada_moe", {"moe_layer_freq": [0, 1, 0]}, (1,)),
        ("llada_moe", {"moe_layer_freq": [0, 0, 0]}, ()),
    ],
)
def test_some_layers_are_routed(fixture: str, changes: dict[str, Any], layers: tuple[int, ...]) -> None:
    config = parse(fixture, changes)

    assert (config.experts.layers if config.experts else ()) == layers
    assert sorted((*layers, *config.dense_layers)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("fixture", "has_bias", "rule"),
    [
        ("sdar_moe", False, RoutingRule(score=Score.SOFTMAX, chosen=2, renormalises=True)),
        (
            "llada2",
            True,
            RoutingRule(
                score=Score.SIGMOID,
                chosen=2,
                groups=4,
                kept_groups=2,
                renormalises=True,
                epsilon=1e-20,
                scale=2.5,
                shared=1,
            ),
        ),
        ("llada_moe", False, RoutingRule(score=Score.SOFTMAX, chosen=2, keeps_bias=True)),
    ],
)
def test_a_family_routes_by_its_rule(fixture: str, has_bias: bool, rule: RoutingRule) -> None:
    experts = parse(fixture).experts

    assert experts is not None
    assert (experts.count, experts.width, experts.has_bias) == (8, 32, has_bias)
    assert experts.rule == rule


@pytest.mark.parametrize("fixture", ["sdar", "llada2"])
def test_heads_may_be_wider_than_their_share_of_the_model(fixture: str) -> None:
    config = parse(fixture, {"head_dim": 32})

    assert (config.d_model, config.n_heads, config.head_dim) == (64, 4, 32)


@pytest.mark.parametrize(
    ("fixture", "changes", "problem"),
    [
        ("sdar", {"attention_bias": True}, "attention_bias True is not supported"),
        ("sdar", {"rope_scaling": {"type": "yarn"}}, "rope_scaling {'type': 'yarn'} is not supported"),
        ("sdar", {"head_dim": 15}, "head_dim 15 is odd"),
        ("sdar", {"block_size": 0}, "blocks of 0 tokens"),
        ("sdar", {"confidence_threshold": 85}, "threshold 85.0 is not 0 to 1"),
        ("sdar_moe", {"norm_topk_prob": False}, "norm_topk_prob False is not supported"),
        ("sdar_moe", {"num_experts_per_tok": 9}, "9 experts cannot be chosen"),
        ("sdar_moe", {"moe_intermediate_size": 0}, "expert width is 0"),
        ("sdar_moe", {"mlp_only_layers": [0], "intermediate_size": 0}, "mlp_width is 0"),
        ("llada2", {"expert_capacity": 48}, "expert_capacity 48 is not supported"),
        ("llada2", {"num_shared_experts": 2}, "num_shared_experts 2 is not supported"),
        ("llada2", {"n_group": 3}, "8 experts are not 3 groups"),
        ("llada2", {"topk_group": 5}, "5 of 4 groups cannot be kept"),
        ("llada2", {"partial_rotary_factor": 0.1}, "1 of 16 dimensions of a head cannot turn"),
        ("llada2", {"partial_rotary_factor": 1.5}, "24 of 16 dimensions of a head cannot turn"),
        ("llada2", {"use_qk_norm": False}, "use_qk_norm False is not supported"),
        ("llada2", {"editing_threshold": -1}, "editing_threshold -1.0 is not 0 to 1"),
        ("llada2", {"editing_threshold": 0.5, "max_post_steps": -1}, "max_post_steps -1 is below 0"),
        ("llada_moe", {"moe_layer_freq": [1, 1]}, "moe_layer_freq has 2 entries for 3 layers"),
        ("llada_moe", {"moe_layer_freq": 1}, "moe_layer_freq is 1, not a list of whole numbers"),
        ("llada_moe", {"shared_expert_intermediate_size": 64}, "shared_expert_intermediate_size 64 is not"),
        ("llada_moe", {"clip_qkv": 8}, "clip_qkv 8 is not supported"),
        ("llada_moe", {"rope_theta": None}, "rope_theta is None, not a number"),
        ("illada", {"layer_norm_eps": 1e-5}, "layer_norm_eps 1e-05 is not supported"),
        ("illada", {"mlp_bias": True}, "mlp_bias True is not supported"),
        ("fast_dllm_v2", {"small_block_size": 5}, "sub-blocks of 5 tokens do not divide blocks of 32"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(
    fixture: str, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ModelError, match=r"^config\.json") as refused:
        parse(fixture, changes)

    assert problem in str(refused.value)


def test_a_config_without_a_mask_id_asks_the_tokenizer_and_is_refused_without_one() -> None:
    assert parse("sdar", {"mask_token_id": None}).mask_token_id == 380
    values = json.loads((FIXTURES / "sdar" / "config.json").read_text())
    del values["mask_token_id"]

    with pytest.raises(ModelError, match="mask_token_id is missing"):
        find_family(values)


@pytest.mark.parametrize("fixture", ["sdar", "llada2", "fast_dllm_v2", "illada", "llada_moe"])
def test_a_fixture_is_read_as_a_directory(fixture: str) -> None:
    assert open_checkpoint(FIXTURES / fixture).config == parse(fixture)
