"""Text to tokens and back, with the files of the model's directory and never with its code."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from dllm_server.logs import adopt_logger
from dllm_server.models.chat_template import TemplateLook, look_at_template
from dllm_server.models.config import ModelConfig
from dllm_server.models.files import refuse_pointer
from dllm_server.models.ordinary_text import Marks, without_specials
from dllm_server.models.text_bound import characters_per_token

Message = dict[str, Any]  # role, content and perhaps name, reasoning, tool_calls and tool_call_id

_NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})
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

    @property
    def has_chat_template(self) -> bool:
        """Whether ``encode_chat`` can render conversations."""

    @property
    def template(self) -> TemplateLook:
        """What ``encode_chat`` can render besides."""

    def added_ids(self, names: Collection[str]) -> Mapping[str, int]:
        """Ids of those of ``names`` that are tokens of their own, special or not."""

    def encode(
        self, text: str, *, add_special_tokens: bool = True, most_tokens: int | None = None
    ) -> list[int]:
        """Token ids of ``text``; a special token's name becomes that token, but for the mask's.
        ``TextTooLongError`` when its length alone says that it is more than ``most_tokens``."""

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
        arguments: Mapping[str, Any] = _NO_ARGUMENTS,
        most_tokens: int | None = None,
    ) -> list[int]:
        """Token ids of a conversation in the model's chat template, which is given ``tools`` and may read
        ``arguments``; no name in a message or a tool becomes a special token. ``most_tokens`` as in
        ``encode``."""

    def decode(
        self,
        token_ids: Sequence[int],
        *,
        skip_special_tokens: bool = True,
        kept: Collection[int] = (),
    ) -> str:
        """Text of ``token_ids``; ids the tokenizer does not know give no text. ``kept`` special tokens are
        not skipped."""


class FileTokenizer:
    """A tokenizer of transformers; the Rust part does the work, since it may be shared by threads.

    The mask's name is ordinary text wherever it stands; in a conversation, so is the name of any special
    token, unless the template itself writes it.
    """

    def __init__(
        self, fast: Any, *, mask_token_id: int | None = None, eos_token_ids: Collection[int] = ()
    ) -> None:
        self._fast = fast
        self._backend = cast("Backend", fast.backend_tokenizer)
        self._characters_per_token = characters_per_token(json.loads(self._backend.to_str()))
        mask = fast.mask_token_id if mask_token_id is None else mask_token_id
        added = self._backend.get_added_tokens_decoder()
        self._mask = {mask} - {None}
        self._special = {token_id for token_id, token in added.items() if token.special}
        self._skipped = frozenset(self._special)
        self._special |= {*self._mask, *eos_token_ids}
        self._plain = without_specials(self._backend, self._special)
        names = (self._backend.id_to_token(token_id) for token_id in self._special)
        self._marks = Marks(name for name in names if name is not None)

    @property
    def has_text(self) -> bool:
        return True

    @property
    def has_chat_template(self) -> bool:
        return bool(self._fast.chat_template)

    def to_json(self) -> str:
        """What a ``tokenizer.json`` would say."""
        return self._backend.to_str()

    @cached_property
    def template(self) -> TemplateLook:
        return look_at_template(self._fast)

    def added_ids(self, names: Collection[str]) -> Mapping[str, int]:
        added = self._backend.get_added_tokens_decoder()
        return {token.content: token_id for token_id, token in added.items() if token.content in names}

    def encode(
        self, text: str, *, add_special_tokens: bool = True, most_tokens: int | None = None
    ) -> list[int]:
        ids = self._read(text, add_special_tokens, most_tokens)
        matches = [place for place, token_id in enumerate(ids) if token_id in self._mask]
        if not matches:
            return ids
        return self._with_ordinary(text, _encode(self._backend, text, add_special_tokens), matches)

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
        arguments: Mapping[str, Any] = _NO_ARGUMENTS,
        most_tokens: int | None = None,
    ) -> list[int]:
        if not self.has_chat_template:
            raise TokenizerError("this model has no chat template: use /v1/completions")
        sign = Marks.sign_for([*messages, *tools, arguments])
        if sign is None:
            raise TokenizerError("the messages hold every one of Unicode's noncharacters U+FDD0 to U+FDEF")
        try:
            rendered = self._fast.apply_chat_template(
                [self._marked(message, sign) for message in messages],
                tools=[self._marks.insert_within(tool, sign) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **arguments,
            )
        except Exception as error:  # a template is a program: it may fail in any way
            words = " ".join(str(error).replace(sign, "").split())
            raise TokenizerError(f"the model's chat template refuses the messages: {words}") from error
        text, flagged = Marks.remove(str(rendered), sign)
        # The template writes the special tokens itself: adding them again would give two BOS.
        ids = self._read(text, False, most_tokens)
        if not flagged and not arguments:
            return ids
        encoding = _encode(self._backend, text, False)

        def is_flagged(place: int) -> bool:
            start, end = _characters(encoding, place)
            return bisect_left(flagged, end) > bisect_left(flagged, start)

        matches = [
            place
            for place, token_id in enumerate(ids)
            if token_id in self._mask  # no template writes it, but an argument of one may hold its name
            or (token_id in self._special and is_flagged(place))
        ]
        return self._with_ordinary(text, encoding, matches) if matches else ids

    def decode(
        self,
        token_ids: Sequence[int],
        *,
        skip_special_tokens: bool = True,
        kept: Collection[int] = (),
    ) -> str:
        if skip_special_tokens and kept:
            skipped = self._skipped.difference(kept)
            token_ids = [token_id for token_id in token_ids if token_id not in skipped]
            skip_special_tokens = False
        if len(token_ids) <= _FEW_TOKENS:
            return self._backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        # A single call keeps the interpreter's lock as long as it works; a batch gives it up.
        (text,) = self._backend.decode_batch([list(token_ids)], skip_special_tokens=skip_special_tokens)
        return text

    def _marked(self, message: Message, sign: str) -> Message:
        return {
            name: value
            if name == "role"
            else self._marks.insert(value, sign)
            if isinstance(value, str)
            else self._marks.insert_within(value, sign)
            for name, value in message.items()
        }

    def _read(self, text: str, add_special_tokens: bool, most_tokens: int | None) -> list[int]:
        if most_tokens is not None and self._characters_per_token is not None:
            most = most_tokens * self._characters_per_token
            if len(text) > most:
                raise TextTooLongError(
                    f"{len(text)} characters are more than {most_tokens} tokens of this model, which hold "
                    f"{most} at most: shorten it"
                )
        return _ids(self._backend, text, add_special_tokens)

    def _with_ordinary(self, text: str, encoding: Encoding, matches: Sequence[int]) -> list[int]:
        """The ids of ``text`` where the special tokens at ``matches`` of its encoding are ordinary text. What
        lies between the special tokens around such a match is read again; all else stays."""
        ids, ordinary = encoding.ids, set(matches)
        of_text = [place for place, is_added in enumerate(encoding.special_tokens_mask) if not is_added]
        kept = [place for place in of_text if ids[place] in self._special and place not in ordinary]
        result, start, first = ids[: of_text[0]], 0, of_text[0]
        for place in [*kept, of_text[-1] + 1]:
            is_last = place > of_text[-1]
            end = len(text) if is_last else _characters(encoding, place)[0]
            if ordinary.isdisjoint(range(first, place)):
                result += ids[first:place]
            else:
                result += self._read_plain(text[start:end])
            if not is_last:
                result.append(ids[place])
                start, first = _characters(encoding, place)[1], place + 1
        return result + ids[of_text[-1] + 1 :]

    def _read_plain(self, text: str) -> list[int]:
        ids = _ids(self._plain, text, False)
        if not self._special.isdisjoint(ids):
            raise TokenizerError(
                "the text holds the name of a special token, which this tokenizer cannot split"
            )
        return ids


# A single call keeps the interpreter's lock as long as it works; a batch gives it up.


def _ids(backend: Backend, text: str, add_special_tokens: bool) -> list[int]:
    (encoding,) = backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
    ids: list[int] = encoding.ids
    return ids


def _encode(backend: Backend, text: str, add_special_tokens: bool) -> Encoding:
    """Tokens that know their characters, in several times the time of ``_ids``."""
    (encoding,) = backend.encode_batch([text], add_special_tokens=add_special_tokens)
    return encoding


def _characters(encoding: Encoding, place: int) -> tuple[int, int]:
    """Where a token of the text begins and ends; ``offsets`` would make a tuple for every token at once, with
    the interpreter's lock held."""
    return cast("tuple[int, int]", encoding.token_to_chars(place))


class NoTokenizer:
    """Stands in when the directory holds no tokenizer files: token ids pass, text is refused."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    @property
    def has_text(self) -> bool:
        return False

    @property
    def has_chat_template(self) -> bool:
        return False

    @property
    def template(self) -> TemplateLook:
        return TemplateLook()

    def added_ids(self, names: Collection[str]) -> Mapping[str, int]:
        return {}

    def encode(
        self, text: str, *, add_special_tokens: bool = True, most_tokens: int | None = None
    ) -> list[int]:
        raise TokenizerError(self._reason)

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
        arguments: Mapping[str, Any] = _NO_ARGUMENTS,
        most_tokens: int | None = None,
    ) -> list[int]:
        raise TokenizerError(self._reason)

    def decode(
        self,
        token_ids: Sequence[int],
        *,
        skip_special_tokens: bool = True,
        kept: Collection[int] = (),
    ) -> str:
        return ""


def load_tokenizer(
    directory: Path, *, mask_token_id: int | None = None, eos_token_ids: Collection[int] = ()
) -> Tokenizer:
    """The tokenizer of a model directory: ``tokenizer.json``, or ``vocab.json`` and ``merges.txt`` (Qwen2's,
    as in Dream).

    Without either, one that refuses text. ``mask_token_id`` and ``eos_token_ids`` are the model's, which the
    files need not name. ``ValueError`` names the directory when the files are there but broken. Classes named
    in ``tokenizer_config.json`` are ignored, so no code of the directory can run.
    """
    whole, parts = directory / "tokenizer.json", [directory / "vocab.json", directory / "merges.txt"]
    if whole.is_file():
        fast = _load(directory, "PreTrainedTokenizerFast", [whole])
    elif all(path.is_file() for path in parts):
        fast = _load(directory, "Qwen2Tokenizer", parts)
    else:
        return NoTokenizer(
            f"model directory {directory} has no tokenizer files (tokenizer.json, or vocab.json and "
            "merges.txt): send the prompt as token ids to /v1/completions, with return_token_ids"
        )
    return FileTokenizer(fast, mask_token_id=mask_token_id, eos_token_ids=eos_token_ids)


def tokenizer_of(directory: Path, config: ModelConfig) -> Tokenizer:
    """The tokenizer of a checkpoint, which knows the model's mask and EOS."""
    return load_tokenizer(directory, mask_token_id=config.mask_token_id, eos_token_ids=config.eos_token_ids)


def _load(directory: Path, class_name: str, files: Sequence[Path]) -> Any:
    import transformers  # takes a second: not at import time

    adopt_logger("transformers")
    for path in files:
        refuse_pointer(path)
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
