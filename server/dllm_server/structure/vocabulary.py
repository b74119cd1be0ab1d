"""A model's tokens as grammars see them: the bytes of each."""

from __future__ import annotations

from pathlib import Path

import msgspec
from llguidance import LLTokenizer

from dllm_server.structure.compiler import GrammarError


class VocabularyFiles(msgspec.Struct, frozen=True):
    """Where a model's tokenizer lies, how many logits it has, and which tokens end a text."""

    directory: str
    vocab_size: int
    eos_token_ids: list[int]


def load_vocabulary(files: VocabularyFiles) -> LLTokenizer:
    """Takes seconds for a large vocabulary. ``GrammarError`` where no tokenizer says which bytes a token
    stands for."""
    try:
        return LLTokenizer(
            _tokenizer_json(Path(files.directory)), n_vocab=files.vocab_size, eos_token=_eos(files)
        )
    except (ValueError, OSError) as error:
        words = " ".join(str(error).split())
        raise GrammarError(f"this model's tokenizer cannot be held to a grammar: {words}") from error


def _eos(files: VocabularyFiles) -> list[int]:
    if not files.eos_token_ids:
        raise ValueError("no token ends a text")
    return files.eos_token_ids


def _tokenizer_json(directory: Path) -> str:
    whole = directory / "tokenizer.json"
    if whole.is_file():
        return whole.read_text()
    from dllm_server.models.tokenizer import FileTokenizer, load_tokenizer  # takes seconds: not at import

    tokenizer = load_tokenizer(directory)
    if not isinstance(tokenizer, FileTokenizer):
        raise ValueError("there are no tokenizer files")
    return tokenizer.to_json()
