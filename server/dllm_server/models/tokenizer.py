"""Text to tokens and back, with the files of the model's directory and never with its code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from jinja2.exceptions import TemplateError
from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from dllm_server.models.text_bound import characters_per_token

Message = dict[str, str]  # role, content and perhaps name

_FEW_TOKENS = 256  # decoded so fast that giving up the lock would cost more


class TokenizerError(ValueError):
    """The text cannot be tokenised with what the model's directory holds; the message says what is
    missing."""


class TextTooLongError(TokenizerError):
    """The text cannot be as few tokens as it may be; it has not been tokenised."""


class Tokenizer(Protocol):
    """What the API needs of a tokenizer."""

    @property
    def has_text(self) -> bool:
        """Whether there is a tokenizer at all; without one only token ids go in and out."""

    def encode(
        self, text: str, *, add_special_tokens: bool = True, most_tokens: int | None = None
    ) -> list[int]:
        """Token ids of ``text``; a special token's text becomes that token. ``TextTooLongError`` when its
        length alone says that it is more than ``most_tokens``."""

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        most_tokens: int | None = None,
    ) -> list[int]:
        """Token ids of a conversation in the model's chat template; ``most_tokens`` as in ``encode``."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of ``token_ids``; ids the tokenizer does not know give no text."""


class FileTokenizer:
    """A tokenizer of transformers; the Rust part does the work, since it may be shared by threads."""

    def __init__(self, fast: Any) -> None:
        self._fast = fast
        self._backend = cast("Backend", fast.backend_tokenizer)
        self._characters_per_token = characters_per_token(json.loads(self._backend.to_str()))

    @property
    def has_text(self) -> bool:
        return True

    def encode(
        self, text: str, *, add_special_tokens: bool = True, most_tokens: int | None = None
    ) -> list[int]:
        return list(self._read(text, add_special_tokens, most_tokens).ids)

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        most_tokens: int | None = None,
    ) -> list[int]:
        if not self._fast.chat_template:
            raise TokenizerError("this model has no chat template: use /v1/completions")
        try:
            text = self._fast.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise TokenizerError(f"the model's chat template refuses the messages: {error}") from error
        # The template writes the special tokens itself: adding them again would give two BOS.
        return self.encode(str(text), add_special_tokens=False, most_tokens=most_tokens)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        if len(token_ids) <= _FEW_TOKENS:
            return self._backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        # A single call keeps the interpreter's lock as long as it works; a batch gives it up.
        (text,) = self._backend.decode_batch([list(token_ids)], skip_special_tokens=skip_special_tokens)
        return text

    def _read(self, text: str, add_special_tokens: bool, most_tokens: int | None) -> Encoding:
        if most_tokens is not None and self._characters_per_token is not None:
            most = most_tokens * self._characters_per_token
            if len(text) > most:
                raise TextTooLongError(
                    f"{len(text)} characters are more than {most_tokens} tokens of this model, which hold "
                    f"{most} at most: shorten it"
                )
        # A single call keeps the interpreter's lock as long as it works; a batch gives it up.
        (encoding,) = self._backend.encode_batch([text], add_special_tokens=add_special_tokens)
        return encoding


class NoTokenizer:
    """Stands in when the directory holds no tokenizer files: token ids pass, text is refused."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    @property
    def has_text(self) -> bool:
        return False

    def encode(
        self, text: str, *, add_special_tokens: bool = True, most_tokens: int | None = None
    ) -> list[int]:
        raise TokenizerError(self._reason)

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        most_tokens: int | None = None,
    ) -> list[int]:
        raise TokenizerError(self._reason)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return ""


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a model directory: ``tokenizer.json``, or ``vocab.json`` and ``merges.txt`` (Qwen2's,
    as in Dream).

    Without either, one that refuses text. ``ValueError`` names the directory when the files are there but
    broken. Classes named in ``tokenizer_config.json`` are ignored, so no code of the directory can run.
    """
    if (directory / "tokenizer.json").is_file():
        return FileTokenizer(_load(directory, "PreTrainedTokenizerFast"))
    if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        return FileTokenizer(_load(directory, "Qwen2Tokenizer"))
    return NoTokenizer(
        f"model directory {directory} has no tokenizer files (tokenizer.json, or vocab.json and merges.txt): "
        "send the prompt as token ids to /v1/completions, with return_token_ids"
    )


def _load(directory: Path, class_name: str) -> Any:
    import transformers  # takes a second: not at import time

    try:
        loaded = getattr(transformers, class_name).from_pretrained(
            str(directory), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the Rust part raises plain Exception
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"tokenizer files in {directory} cannot be read: {reason}") from error
    if not loaded.is_fast:
        raise ValueError(
            f"tokenizer files in {directory} need a slow tokenizer: convert them to tokenizer.json"
        )
    return loaded
