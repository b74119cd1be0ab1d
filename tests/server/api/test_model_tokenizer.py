from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from dllm_server.models.tokenizer import TokenizerError, load_tokenizer
from scripted_engine import FIXTURE
from scripted_server import ScriptedServer


def qwen_directory(path: Path) -> Path:
    """A model directory as Dream's: vocabulary and merges, a tokenizer class that only remote code has."""
    vocabulary = {"a": 0, "b": 1, "ab": 2, "\u0120": 3}
    (path / "vocab.json").write_text(json.dumps(vocabulary))
    (path / "merges.txt").write_text("#version: 0.2\na b\n")
    added = {
        "4": {"content": "<|im_start|>", "special": True},
        "5": {"content": "<|mask|>", "special": True},
    }
    config = {
        "tokenizer_class": "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "added_tokens_decoder": added,
        "chat_template": "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}",
        "bos_token": "<|im_start|>",
        "mask_token": "<|mask|>",
    }
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "tokenization_dream.py").write_text("raise SystemExit('remote code ran')")
    return path


def test_vocabulary_and_merges_are_read_without_running_the_directorys_code(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(qwen_directory(tmp_path))

    assert tokenizer.encode("ab a<|im_start|>") == [2, 3, 0, 4]
    assert tokenizer.decode([2, 3, 0, 5], skip_special_tokens=False) == "ab a<|mask|>"
    assert tokenizer.decode([2, 3, 0, 5]) == "ab a"


def test_the_chat_template_alone_writes_special_tokens(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(qwen_directory(tmp_path))

    assert tokenizer.encode_chat([{"role": "user", "content": "ab"}]) == [4, 4, 2, 4]
    assert tokenizer.encode_chat([{"role": "user", "content": "ab"}], add_generation_prompt=False) == [
        4,
        4,
        2,
    ]


def test_a_template_that_refuses_the_messages_is_a_clear_error(tmp_path: Path) -> None:
    shutil.copy(FIXTURE / "tokenizer.json", tmp_path)
    template = "{{ raise_exception('roles must alternate') }}"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))

    with pytest.raises(TokenizerError, match="roles must alternate"):
        load_tokenizer(tmp_path).encode_chat([{"role": "user", "content": "x"}])


def test_a_model_without_a_template_is_pointed_to_completions(tmp_path: Path) -> None:
    shutil.copy(FIXTURE / "tokenizer.json", tmp_path)

    with pytest.raises(TokenizerError, match="use /v1/completions"):
        load_tokenizer(tmp_path).encode_chat([{"role": "user", "content": "x"}])


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")

    with pytest.raises(ValueError, match=f"tokenizer files in {tmp_path} cannot be read"):
        load_tokenizer(tmp_path)


def test_without_tokenizer_files_token_ids_pass_and_text_is_refused(tmp_path: Path) -> None:
    with ScriptedServer(tokenizer=load_tokenizer(tmp_path)) as server:
        ids = {"prompt": [1, 2], "max_tokens": 3, "return_token_ids": True}
        answered = server.http.post("/v1/completions", json=ids)
        refused = [
            server.http.post("/v1/completions", json={"prompt": "t1"}),
            server.http.post("/v1/completions", json=ids | {"stop": "t2"}),
            server.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "t1"}]}),
            server.http.post("/tokenize", json={"prompt": "t1"}),
            server.http.post("/detokenize", json={"tokens": [1]}),
        ]

        assert answered.json()["choices"][0]["token_ids"] == [0, 1, 2]
        assert [response.status_code for response in refused] == [400] * 5
        assert "no tokenizer files" in refused[0].json()["error"]["message"]
