"""Mask and EOS come from what a checkpoint says of itself, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import EOS, MASK, Size, make_config, write_tokenizer
from dllm_server.models.config import ModelConfig
from dllm_server.models.files import ModelError
from dllm_server.models.registry import open_checkpoint
from structlog.testing import capture_logs

MASK_TEXTS = {"llada": "<|mdm_mask|>", "dream": "<|mask|>"}
TURN_ENDS = {"llada": "<|eot_id|>", "dream": "<|im_end|>"}


def make_directory(
    directory: Path,
    *,
    family: str = "llada",
    config: dict[str, Any] | None = None,
    generation: dict[str, Any] | None = None,
    added: dict[str, int] | None = None,
    **tokenizer: Any,
) -> Path:
    """A checkpoint without weights and, unless ``config`` gives them, without special ids; ``tokenizer`` are
    fields of tokenizer_config.json."""
    values = make_config(Size(family=family)) | {"mask_token_id": None, "eos_token_id": None} | (config or {})
    (directory / "config.json").write_text(json.dumps(values))
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    if added is not None:
        write_tokenizer(directory, added=added, **tokenizer)
    return directory


def config_of(directory: Path) -> ModelConfig:
    return open_checkpoint(directory).config


def refusal(directory: Path) -> str:
    with pytest.raises(ModelError) as refused:
        open_checkpoint(directory)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("family", MASK_TEXTS)
def test_the_configs_mask_id_comes_first(tmp_path: Path, family: str) -> None:
    directory = make_directory(
        tmp_path,
        family=family,
        config={"mask_token_id": MASK, "eos_token_id": EOS},
        added={MASK_TEXTS[family]: 9, "<mask>": 8},
        mask_token="<mask>",
    )

    with capture_logs() as logs:
        assert config_of(directory).mask_token_id == MASK
    assert logs == [
        {
            "event": "the tokenizer's mask is another than the config's",
            "log_level": "warning",
            "config": MASK,
            "tokenizer": 8,
        }
    ]


@pytest.mark.parametrize("family", MASK_TEXTS)
def test_without_one_the_tokenizers_mask_token_is_taken(tmp_path: Path, family: str) -> None:
    added = {MASK_TEXTS[family]: 9, "<mask>": 8}
    directory = make_directory(
        tmp_path, family=family, config={"eos_token_id": EOS}, added=added, mask_token={"content": "<mask>"}
    )

    assert config_of(directory).mask_token_id == 8


@pytest.mark.parametrize("family", MASK_TEXTS)
def test_without_that_the_familys_own_text_among_the_added_tokens_is_taken(
    tmp_path: Path, family: str
) -> None:
    directory = make_directory(
        tmp_path, family=family, config={"eos_token_id": EOS}, added={MASK_TEXTS[family]: 9}
    )

    assert config_of(directory).mask_token_id == 9


@pytest.mark.parametrize("family", MASK_TEXTS)
def test_no_mask_is_guessed(tmp_path: Path, family: str) -> None:
    other = MASK_TEXTS["dream" if family == "llada" else "llada"]
    directory = make_directory(tmp_path, family=family, config={"eos_token_id": EOS}, added={other: 9})

    assert refusal(directory) == (
        "config.json: mask_token_id is missing, the tokenizer has no mask_token, and none of its added "
        f"tokens is {MASK_TEXTS[family]}: write the id that the model was trained with into config.json"
    )


def test_without_tokenizer_files_the_config_is_enough(tmp_path: Path) -> None:
    config = config_of(make_directory(tmp_path, config={"mask_token_id": MASK, "eos_token_id": EOS}))

    assert (config.mask_token_id, config.eos_token_ids) == (MASK, (EOS,))


@pytest.mark.parametrize("family", TURN_ENDS)
def test_eos_is_the_union_of_what_every_file_names(tmp_path: Path, family: str) -> None:
    directory = make_directory(
        tmp_path,
        family=family,
        config={"mask_token_id": MASK, "eos_token_id": [20, 21]},
        generation={"eos_token_id": [21, 22]},
        added={"<end>": 23, TURN_ENDS[family]: 24, "<|endoftext|>": 20},
        eos_token="<end>",
    )

    assert set(config_of(directory).eos_token_ids) == {20, 21, 22, 23, 24}


@pytest.mark.parametrize(
    ("family", "config", "generation", "added", "eos_token", "expected"),
    [
        pytest.param(
            "llada",
            {"eos_token_id": 50},
            None,
            {"<|endoftext|>": 50, "<|eot_id|>": 51},
            "<|endoftext|>",
            (50, 51),
            id="LLaDA-8B: the turn's end is in the tokenizer alone",
        ),
        pytest.param(
            "dream",
            {"eos_token_id": 43},
            {"eos_token_id": 43},
            {"<|endoftext|>": 43, "<|im_end|>": 45},
            "<|endoftext|>",
            (43, 45),
            id="Dream-7B",
        ),
        pytest.param(
            "dream",
            {"eos_token_id": 43},
            {"eos_token_id": [45, 43]},
            None,
            None,
            (43, 45),
            id="the turn's end is in generation_config.json alone",
        ),
        pytest.param("llada", {}, {"eos_token_id": 50}, None, None, (50,), id="no eos in config.json"),
        pytest.param("llada", {"eos_token_id": []}, None, {"</s>": 7}, "</s>", (7,), id="tokenizer alone"),
        pytest.param(
            "llada", {"eos_token_id": 5}, None, {"<|eot_id|>": 4096}, None, (5,), id="past the vocabulary"
        ),
    ],
)
def test_the_ends_of_real_layouts(
    tmp_path: Path,
    family: str,
    config: dict[str, Any],
    generation: dict[str, Any] | None,
    added: dict[str, int] | None,
    eos_token: str | None,
    expected: tuple[int, ...],
) -> None:
    named = {} if eos_token is None else {"eos_token": eos_token}
    directory = make_directory(
        tmp_path,
        family=family,
        config={"mask_token_id": MASK} | config,
        generation=generation,
        added=added,
        **named,
    )

    assert config_of(directory).eos_token_ids == expected


def test_no_eos_is_guessed(tmp_path: Path) -> None:
    directory = make_directory(tmp_path, config={"mask_token_id": MASK}, added={"<|im_end|>": 9})

    assert "eos_token_id is missing" in refusal(directory)
    assert "<|endoftext|> or <|eot_id|>" in refusal(directory)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"config": {"mask_token_id": 64}}, "config.json: mask_token_id 64 is outside the vocabulary of 64"),
        ({"config": {"mask_token_id": [60]}}, "config.json: mask_token_id is [60], not a whole number"),
        ({"config": {"mask_token_id": "60"}}, "config.json: mask_token_id is '60', not a whole number"),
        ({"config": {"eos_token_id": [1, "2"]}}, "eos_token_id is [1, '2'], not a whole number or a list of"),
        ({"config": {"eos_token_id": list(range(33))}}, "33 EOS tokens exceed 32: name fewer"),
        ({"config": {"eos_token_id": True}}, "eos_token_id is True, not a whole number"),
        ({"generation": {"eos_token_id": [3, 64]}}, "generation_config.json: eos_token_id 64 is outside"),
        ({"config": {"eos_token_id": [EOS, MASK]}}, f"token {MASK} is both mask and EOS"),
        (
            {"config": {"mask_token_id": None}, "added": {"<|mdm_mask|>": 64}},
            "tokenizer: mask_token 64 is outside the vocabulary of 64",
        ),
    ],
)
def test_ids_that_cannot_be_are_refused_by_file_and_field(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    config = {"mask_token_id": MASK, "eos_token_id": EOS} | changes.pop("config", {})

    assert problem in refusal(make_directory(tmp_path, config=config, **changes))


@pytest.mark.parametrize("file", ["added_tokens.json", "tokenizer_config.json"])
def test_the_older_places_of_added_tokens_are_read(tmp_path: Path, file: str) -> None:
    directory = make_directory(tmp_path, family="dream", config={"eos_token_id": EOS})
    content: dict[str, Any] = {"<|mask|>": 9}
    if file == "tokenizer_config.json":
        content = {"added_tokens_decoder": {"9": {"content": "<|mask|>", "special": True}}}
    (directory / file).write_text(json.dumps(content))

    assert config_of(directory).mask_token_id == 9


def test_a_tokens_name_is_found_in_the_plain_vocabulary_too(tmp_path: Path) -> None:
    directory = make_directory(tmp_path, config={"eos_token_id": EOS})
    (directory / "vocab.json").write_text(json.dumps({"a": 0, "[MASK]": 7}))
    (directory / "special_tokens_map.json").write_text(json.dumps({"mask_token": "[MASK]"}))

    assert config_of(directory).mask_token_id == 7
