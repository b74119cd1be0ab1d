"""The embedded model's tokenizer: template phrases as single tokens, everything else byte by byte."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from training.phrases import all_phrases

END_OF_TEXT = "<|endoftext|>"
MASK = "<|mdm_mask|>"
SYSTEM, USER, ASSISTANT, END_OF_TURN = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL_TOKENS = (END_OF_TEXT, MASK, SYSTEM, USER, ASSISTANT, END_OF_TURN)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer() -> Tokenizer:
    """Ids: special tokens, the 256 bytes, then phrases. Lossless for any text."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    phrases = all_phrases()

    def spelled(text: str) -> str:
        return "".join(piece for piece, _ in byte_level.pre_tokenize_str(text))

    tokens = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *map(spelled, phrases)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    alternatives = "|".join(re.escape(phrase).replace("\\\n", "\n") for phrase in phrases)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(alternatives), behavior="isolated"), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that must exist. Raises ValueError if it does not."""
    identifier = tokenizer.token_to_id(token)
    if identifier is None:
        raise ValueError(f"the tokenizer has no token {token!r}: build it with training.tokenizer")
    return int(identifier)


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json, as `transformers` reads them."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "mask_token": MASK,
        "additional_special_tokens": [SYSTEM, USER, ASSISTANT, END_OF_TURN],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def render_prompt(question: str, system: str | None = None) -> str:
    """What the chat template makes of one user turn."""
    opening = "" if system is None else f"{SYSTEM}{system}{END_OF_TURN}"
    return f"{opening}{USER}{question}{END_OF_TURN}{ASSISTANT}"
