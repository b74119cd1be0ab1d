"""How much text so many tokens can be at most, where a tokenizer's parts allow to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A character of NFC is put together from at most four (the longest canonical decomposition).
_COMPOSED_FROM = {"NFC": 4, "NFD": 1, "Prepend": 1}
_KEEPS_ALL = frozenset({"ByteLevel", "Digits", "Metaspace"})  # pre-tokenizers that drop nothing
_BYTE_LETTERS = frozenset(
    [chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))]
    + [chr(256 + index) for index in range(68)]
)
_BYTE_TOKENS = frozenset(f"<0x{byte:02X}>" for byte in range(256))


def characters_per_token(tokenizer: Mapping[str, Any]) -> int | None:
    """Most characters of a text that one token can stand for; ``tokenizer`` is the content of a
    ``tokenizer.json``.

    None where there is no bound: parts that drop or merge characters without end (white space that is split
    away or stripped around a special token, unknown words as one token, truncation), or that are not known.
    """
    added = tokenizer.get("added_tokens") or []
    shrinks = _most_composed(tokenizer.get("normalizer"))
    is_whole = (
        tokenizer.get("truncation") is None
        and not any(token.get("lstrip") or token.get("rstrip") for token in added)
        and _keeps_all(tokenizer.get("pre_tokenizer"))
        and _reads_all(tokenizer["model"], _parts(tokenizer.get("pre_tokenizer"), "pretokenizers"))
    )
    if shrinks is None or not is_whole:
        return None
    texts = [*tokenizer["model"]["vocab"], *(token["content"] for token in added)]
    return shrinks * max(map(len, texts))


def _parts(part: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """A part's own parts, if it is a sequence; itself, if not."""
    if part is None:
        return []
    return list(part[name]) if part["type"] == "Sequence" else [part]


def _most_composed(normalizer: Mapping[str, Any] | None) -> int | None:
    """Most characters of a text that become one of the normalised text."""
    most = 1
    for part in _parts(normalizer, "normalizers"):
        if part["type"] == "Replace" and "String" in part["pattern"]:
            if len(part["content"]) < len(part["pattern"]["String"]):
                return None
        elif part["type"] in _COMPOSED_FROM:
            most *= _COMPOSED_FROM[part["type"]]
        else:
            return None
    return most


def _keeps_all(pre_tokenizer: Mapping[str, Any] | None) -> bool:
    return all(
        part["type"] in _KEEPS_ALL or (part["type"] == "Split" and part["behavior"] != "Removed")
        for part in _parts(pre_tokenizer, "pretokenizers")
    )


def _reads_all(model: Mapping[str, Any], pre_tokenizers: list[Mapping[str, Any]]) -> bool:
    """Whether every character becomes a part of some token: only BPE over all bytes is known to."""
    if model.get("type") != "BPE":
        return False
    vocabulary = set(model["vocab"])
    reads_bytes = any(part["type"] == "ByteLevel" for part in pre_tokenizers) and vocabulary >= _BYTE_LETTERS
    return reads_bytes or bool(model.get("byte_fallback") and vocabulary >= _BYTE_TOKENS)
