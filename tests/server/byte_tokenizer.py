"""A tokenizer of bytes and a few words of JSON for checkpoints whose own says nothing of bytes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from checkpoints import EOS, MASK, Size, make_checkpoint
from dllm_server.models.registry import open_checkpoint
from engines import FIXTURES

_NEVER_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}
_WORDS = ('":', '",', '{"', '"}', "tr", "ue", "fa", "ls", "nu", "ll", "an", "er", "10")
WEIGHTS = ("*.safetensors", "config.json", "generation_config.json", "tokenizer_config.json")


def characters() -> dict[int, str]:
    """Byte -> the character that stands for it in a byte-level vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def write_byte_tokenizer(directory: Path, vocab_size: int, specials: dict[str, int]) -> None:
    """Every byte that occurs in UTF-8, words as far as the ids go, then special tokens; ``specials`` keep
    theirs."""
    of = characters()
    free = [number for number in range(vocab_size) if number not in specials.values()]
    pieces = [of[byte] for byte in range(256) if byte not in _NEVER_IN_UTF8]
    merges = [f"{of[ord(word[0])]} {of[ord(word[1])]}" for word in _WORDS][: len(free) - len(pieces)]
    pieces += [merge.replace(" ", "") for merge in merges]
    vocabulary = dict(zip(pieces, free, strict=False))
    specials = specials | {f"<|unused-{number}|>": number for number in free[len(pieces) :]}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": name, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for name, number in sorted(specials.items(), key=lambda item: item[1])
        ],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": vocabulary | specials,
            "merges": merges,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
        },
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))


@cache
def byte_model(family: str) -> Path:
    """A checkpoint of the family with such a tokenizer: a fixture's weights, or random ones."""
    directory = Path(mkdtemp(prefix="dllm-test-"))
    if family in ("llada", "dream"):
        make_checkpoint(directory, Size(family=family, n_kv_heads=2, vocab_size=272, max_model_len=512))
        write_byte_tokenizer(directory, 272, {"<|mask|>": MASK, "<|eos|>": EOS})
        return directory
    for pattern in WEIGHTS:
        for path in (FIXTURES / family).glob(pattern):
            (directory / path.name).symlink_to(path)
    config = open_checkpoint(FIXTURES / family).config
    added = json.loads((FIXTURES / family / "tokenizer.json").read_text())["added_tokens"]
    names = {token["id"]: token["content"] for token in added}
    numbers = {*config.eos_token_ids, config.mask_token_id}
    specials = {names.get(number, f"<|{number}|>"): number for number in numbers}
    write_byte_tokenizer(directory, config.vocab_size, specials)
    return directory
