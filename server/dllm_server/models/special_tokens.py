"""Which tokens mask a position and which end a request. Only what a checkpoint says of itself counts: its
config files, its tokenizer, and the texts of its family among its added tokens. An id of another model is
never assumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from dllm_server.models.files import ModelError, read_json_if_there

log = structlog.get_logger(__name__)

CONFIG, GENERATION = "config.json", "generation_config.json"
MOST_EOS_TOKENS = 32


@dataclass(frozen=True, slots=True)
class SpecialTexts:
    """Texts by which a family's tokenizers know these tokens, where no file names their ids; ``eos_files``
    are those whose ``eos_token_id`` counts."""

    mask: tuple[str, ...]
    ends: tuple[str, ...]  # of a text or of a turn
    eos_files: tuple[str, ...] = (CONFIG, GENERATION)


@dataclass(frozen=True, slots=True)
class TokenNames:
    """What tokenizer files say: the ids of added tokens by text, and of ``mask_token`` and ``eos_token``."""

    added: Mapping[str, int] = field(default_factory=dict)
    mask_token_id: int | None = None
    eos_token_id: int | None = None


@dataclass(frozen=True, slots=True)
class Declared:
    """All that a checkpoint says of its special tokens; ``files`` are config objects by file name."""

    files: Mapping[str, Mapping[str, Any]]
    names: TokenNames
    texts: SpecialTexts
    vocab_size: int

    def mask_token_id(self) -> int:
        """The config's id, else that of the tokenizer's mask token, else of the family's text.

        A config that disagrees with the tokenizer is believed, with a warning: the reference decoders read
        it, and either may be stale. Raises ``ModelError`` where nothing names one.
        """
        added = (self.names.added.get(text) for text in self.texts.mask)
        candidates = [self.names.mask_token_id, *added]
        known = next((token_id for token_id in candidates if token_id is not None), None)
        for file, token_id in self._ids("mask_token_id"):
            if known not in (None, token_id):
                log.warning(
                    "the tokenizer's mask is another than the config's", config=token_id, tokenizer=known
                )
            return self._inside(file, "mask_token_id", token_id)
        if known is None:
            raise ModelError(
                f"{CONFIG}: mask_token_id is missing, the tokenizer has no mask_token, and none of its added "
                f"tokens is {_listed(self.texts.mask)}: write the id that the model was trained with into "
                f"{CONFIG}"
            )
        return self._inside("tokenizer", "mask_token", known)

    def eos_token_ids(self, mask_token_id: int) -> tuple[int, ...]:
        """Every id that ends a request: of the config files, the tokenizer's ``eos_token``, and the family's
        texts. Raises ``ModelError`` where nothing names one, or where one is the mask."""
        named = [
            self._inside(file, "eos_token_id", token_id)
            for file, token_id in self._ids("eos_token_id")
            if file in self.texts.eos_files
        ]
        known = [self.names.eos_token_id, *(self.names.added.get(text) for text in self.texts.ends)]
        # A tokenizer may know more tokens than the model, which cannot commit them.
        named += [token_id for token_id in known if token_id is not None and token_id < self.vocab_size]
        if not named:
            raise ModelError(
                f"{CONFIG}: eos_token_id is missing, the tokenizer has no eos_token, and none of its added "
                f"tokens is {_listed(self.texts.ends)}: write the id that ends a text into {CONFIG}"
            )
        if mask_token_id in named:
            raise ModelError(
                f"{CONFIG}: token {mask_token_id} is both mask and EOS: correct mask_token_id or eos_token_id"
            )
        ids = tuple(dict.fromkeys(named))
        if len(ids) > MOST_EOS_TOKENS:
            raise ModelError(f"{CONFIG}: {len(ids)} EOS tokens exceed {MOST_EOS_TOKENS}: name fewer")
        return ids

    def _ids(self, name: str) -> list[tuple[str, int]]:
        """(file, id) for each id that a config file gives as ``name``: none, one, or a list of them."""
        found = []
        for file, values in self.files.items():
            value = values.get(name)
            takes_list = name == "eos_token_id"
            ids = [] if value is None else value if isinstance(value, list) and takes_list else [value]
            if any(not isinstance(token_id, int) or isinstance(token_id, bool) for token_id in ids):
                kind = "a whole number or a list of them" if takes_list else "a whole number"
                raise ModelError(f"{file}: {name} is {value!r}, not {kind}")
            found += [(file, token_id) for token_id in ids]
        return found

    def _inside(self, file: str, name: str, token_id: int) -> int:
        if not 0 <= token_id < self.vocab_size:
            raise ModelError(
                f"{file}: {name} {token_id} is outside the vocabulary of {self.vocab_size}: correct the id, "
                "or use this model's own tokenizer"
            )
        return token_id


def read_token_names(directory: Path) -> TokenNames:
    """From ``tokenizer.json``, ``tokenizer_config.json`` and their older companions; empty without them."""
    tokenizer = read_json_if_there(directory / "tokenizer.json")
    config = read_json_if_there(directory / "tokenizer_config.json")
    older = read_json_if_there(directory / "special_tokens_map.json")
    added = _whole(read_json_if_there(directory / "added_tokens.json").items())
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        added |= _whole((_text(token), int(key)) for key, token in decoder.items() if str(key).isdigit())
    listed = tokenizer.get("added_tokens")
    if isinstance(listed, list):
        added |= _whole((_text(token), token.get("id")) for token in listed if isinstance(token, dict))
    vocabulary = _vocabulary(tokenizer) or read_json_if_there(directory / "vocab.json")

    def id_of(name: str) -> int | None:
        text = _text(config.get(name)) or _text(older.get(name))
        found = added.get(text, vocabulary.get(text)) if text else None
        return found if isinstance(found, int) else None

    return TokenNames(added, id_of("mask_token"), id_of("eos_token"))


def _vocabulary(tokenizer: Mapping[str, Any]) -> Mapping[str, Any]:
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    return vocabulary if isinstance(vocabulary, dict) else {}


def _whole(pairs: Iterable[tuple[Any, Any]]) -> dict[str, int]:
    return {
        text: number for text, number in pairs if isinstance(text, str) and text and isinstance(number, int)
    }


def _text(token: Any) -> str:
    """A token is written as its text or as an object with ``content``."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _listed(texts: tuple[str, ...]) -> str:
    return " or ".join(texts) or "known as one"
