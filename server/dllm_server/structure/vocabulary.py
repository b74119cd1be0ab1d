"""A model's tokens as grammars see them: the bytes of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from llguidance import LLTokenizer

from dllm_server.structure.compiler import GrammarError


class VocabularyFiles(msgspec.Struct, frozen=True):
    """Where a model's tokenizer lies, how many logits there are, which tokens end a text, and which is the
    mask."""

    directory: str
    vocab_size: int
    eos_token_ids: list[int]
    mask_token_id: int


def load_vocabulary(files: VocabularyFiles) -> LLTokenizer:
    """Takes seconds for a large vocabulary. ``GrammarError`` where no tokenizer says which bytes a token
    stands for."""
    try:
        return LLTokenizer(_tokenizer_json(files), n_vocab=files.vocab_size, eos_token=_eos(files))
    except (ValueError, OSError, msgspec.MsgspecError) as error:
        words = " ".join(str(error).split())
        raise GrammarError(f"this model's tokenizer cannot be held to a grammar: {words}") from error


def _eos(files: VocabularyFiles) -> list[int]:
    if not files.eos_token_ids:
        raise ValueError("no token ends a text")
    return files.eos_token_ids


def _tokenizer_json(files: VocabularyFiles) -> str:
    """In which neither what ends a text nor the mask is text, whatever the model's files say."""
    read = msgspec.json.decode(_as_it_is(Path(files.directory)), type=dict[str, Any])
    for token in read.get("added_tokens", []):
        is_no_text = token["id"] in {*files.eos_token_ids, files.mask_token_id}
        token["special"] = token.get("special", False) or is_no_text
    return msgspec.json.encode(read).decode()


def _as_it_is(directory: Path) -> bytes:
    whole = directory / "tokenizer.json"
    if whole.is_file():
        return whole.read_bytes()
    from dllm_server.models.tokenizer import FileTokenizer, load_tokenizer  # takes seconds: not at import

    tokenizer = load_tokenizer(directory)
    if not isinstance(tokenizer, FileTokenizer):
        raise ValueError("there are no tokenizer files")
    return tokenizer.to_json().encode()
