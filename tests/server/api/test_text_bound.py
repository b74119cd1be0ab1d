"""Text is refused by its length alone only where no tokenizer could make it fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dllm_server.models.source import EMBEDDED_DIRECTORY
from dllm_server.models.text_bound import characters_per_token
from dllm_server.models.tokenizer import TextTooLongError, load_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_engine import FIXTURE
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers


def make_tokenizer(**parts: Any) -> Tokenizer:
    """Byte-level BPE with a few merges, as Llama's and Qwen's; ``parts`` replace its own."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["ab", "abab", "\u0120\u0120"]
    vocabulary = {text: index for index, text in enumerate([*letters, *words])}
    merges = [("a", "b"), ("ab", "ab"), ("\u0120", "\u0120")]
    tokenizer = Tokenizer(parts.pop("model", None) or models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


def bound_of(tokenizer: Tokenizer) -> int | None:
    return characters_per_token(json.loads(tokenizer.to_str()))


SOUND = {
    "bytes": make_tokenizer(),
    "bytes of composed characters": make_tokenizer(normalizer=normalizers.NFC()),
    "bytes of characters taken apart": make_tokenizer(normalizer=normalizers.NFD()),
    "digits apart": make_tokenizer(
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    ),
    "embedded": Tokenizer.from_file(str(EMBEDDED_DIRECTORY / "tokenizer.json")),
}
MARKS = "\u0308\u0301\u0345\u0323\u1100\u1161\u11a8"


@pytest.mark.parametrize("name", SOUND)
@settings(deadline=None)
@given(text=st.text(max_size=80) | st.text(alphabet="ab \u0391\u0313e" + MARKS, max_size=80))
def test_no_text_has_more_characters_than_its_tokens_may(name: str, text: str) -> None:
    bound = bound_of(SOUND[name])

    assert bound is not None
    assert len(text) <= bound * len(SOUND[name].encode(text).ids)


UNSOUND = {
    "white space is dropped": make_tokenizer(pre_tokenizer=pre_tokenizers.WhitespaceSplit()),
    "a split is dropped": make_tokenizer(
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel()]
        )
    ),
    "text is stripped": make_tokenizer(normalizer=normalizers.Strip()),
    "text is replaced by less": make_tokenizer(normalizer=normalizers.Replace("  ", " ")),
    "unknown words are one token": make_tokenizer(model=models.WordLevel({"a": 0}, "a")),
    "unknown characters are dropped": make_tokenizer(model=models.BPE(vocab={"a": 0}, merges=[])),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_where_text_may_vanish_there_is_no_bound(name: str) -> None:
    assert bound_of(UNSOUND[name]) is None


def test_special_tokens_that_swallow_white_space_leave_no_bound() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens([AddedToken("<|end|>", lstrip=True)])

    assert bound_of(tokenizer) is None


def test_truncation_leaves_no_bound() -> None:
    tokenizer = make_tokenizer()
    tokenizer.enable_truncation(8)

    assert bound_of(tokenizer) is None


@pytest.mark.parametrize("directory", [EMBEDDED_DIRECTORY, FIXTURE], ids=["embedded", "fixture"])
def test_text_is_refused_unread_only_above_the_bound(directory: Path) -> None:
    tokenizer = load_tokenizer(directory)
    bound = characters_per_token(json.loads((directory / "tokenizer.json").read_text()))
    conversation = [{"role": "user", "content": "x" * (3 * (bound or 1) + 1)}]

    if bound is None:
        assert tokenizer.encode("t1 " * 1000, most_tokens=3)
        assert tokenizer.encode_chat(conversation, most_tokens=3)
        return
    assert len(tokenizer.encode("x" * (3 * bound), most_tokens=3)) > 3
    with pytest.raises(TextTooLongError, match=f"{3 * bound + 1} characters are more than 3 tokens"):
        tokenizer.encode("x" * (3 * bound + 1), most_tokens=3)
    with pytest.raises(TextTooLongError):
        tokenizer.encode_chat(conversation, most_tokens=3)
